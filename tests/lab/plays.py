# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the collection's playbooks on the lab, as an operator does."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from cgroups import LabError
from layout import LAB, LOGS, REPOSITORY

RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)",
    re.MULTILINE,
)
LISTED = re.compile(r'\s+("(?:[^"\\]|\\.)*"),?')
TAIL_LINES = 40


@dataclass(frozen=True)
class Recap:
    """One host's line of PLAY RECAP."""

    host: str
    ok: int
    changed: int


def play(name: str, limit: str = "all", *options: str) -> list[Recap]:
    """Run ebpf.fleet.`name` on the hosts `limit` selects.

    Raises LabError, with the end of Ansible's output, when a host failed or none was there.
    """
    return parse(output(name, limit, *options))


def output(name: str, limit: str = "all", *options: str) -> str:
    """The same, and all that Ansible printed."""
    link_collection()
    command = [ansible_playbook(), f"ebpf.fleet.{name}", "--limit", limit, *options]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    log = LOGS / f"{name}.log"
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode or not parse(done.stdout):
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        raise LabError(
            f"{' '.join(command)} failed ({done.returncode}):\n{tail}\n(all of it: {log})"
        )
    return done.stdout


def parse(output: str) -> list[Recap]:
    return [
        Recap(found["host"], int(found["ok"]), int(found["changed"]))
        for found in RECAP.finditer(output)
    ]


def table(output: str, *header: str) -> list[str]:
    """The lines of the last table with this header that the playbook has printed, header included."""
    lines = [said(line) for line in output.splitlines()]
    starts = [
        number for number, line in enumerate(lines) if line.split()[: len(header)] == [*header]
    ]
    if not starts:
        raise LabError(f"no table {' '.join(header)} in:\n{output[-3000:]}")
    return list(takewhile(bool, lines[starts[-1] :]))


def said(line: str) -> str:
    """The text of a line that debug prints of a list; "" for any other line."""
    found = LISTED.fullmatch(line)
    return str(json.loads(found[1])) if found else ""


def summary(recaps: list[Recap]) -> str:
    return ", ".join(f"{recap.host} changed={recap.changed}" for recap in recaps)


def must_change_nothing(recaps: list[Recap]) -> None:
    if any(recap.changed for recap in recaps):
        raise LabError(f"a second run changed something: {summary(recaps)}; see {LOGS}")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(LAB / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }


def ansible_playbook() -> str:
    """The one next to the Python that runs this, else the one on PATH."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    found = str(beside) if beside.exists() else shutil.which("ansible-playbook")
    if not found:
        raise LabError(
            "ansible-playbook is missing: run this through `make lab`, or pip install ansible-core"
        )
    return found


def link_collection() -> None:
    """Let this checkout be found as the collection ebpf.fleet."""
    link = REPOSITORY / ".cache/collections/ansible_collections/ebpf/fleet"
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(REPOSITORY, link.parent))
