# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host that tells metrics, and what tests do with it: play, ask the kernel, read what it tells.

The host is one of tests/lab, with a network namespace for the servers behind its balancer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
os.environ["EBPF_FLEET_LAB"] = "metrics"  # read by layout
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))

import fabric  # noqa: E402
import plays  # noqa: E402
import shell  # noqa: E402
from inside import add_servers  # noqa: E402
from inside import bpftool as host_bpftool  # noqa: E402
from inside import inside as host_inside  # noqa: E402
from layout import HOSTS  # noqa: E402

HOST = HOSTS[0]
RULES = REPOSITORY / "roles" / "metrics" / "files" / "ebpf-fleet.rules.yml"
URL = "http://127.0.0.1:9435/metrics"
PATIENCE = 240.0

Sample = tuple[str, frozenset[tuple[str, str]]]
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def up() -> None:
    """Everything is declared on it. Of the balancer's backends the first has a server."""
    fabric.down()
    fabric.up()
    add_servers(HOST, 8081)
    for name in ("web", "api"):
        inside("mkdir", "-p", f"/sys/fs/cgroup/{name}")
    play("everything.yml")
    wait_for(lambda: inside("curl", "-sSf", "-m30", URL, check=False), "the exporter")


def down() -> None:
    """Nothing of it stays."""
    fabric.down()
    assert not fabric.cgroups.lab_cgroup().exists()


def inside(*words: str, check: bool = True, stdin: str = "") -> str:
    """What the command says in the host."""
    return host_inside(HOST, *words, check=check, stdin=stdin)


def bpftool(*words: str) -> Any:
    return host_bpftool(HOST, *words)


def wait_for(condition: Callable[[], object], what: str) -> None:
    shell.wait_for(condition, what, PATIENCE)


def play(playbook: str, *options: str) -> tuple[int, str]:
    """Run a playbook on the host: how many tasks changed something, and what it printed."""
    known = str(HERE / playbook) if playbook.endswith(".yml") else f"ebpf.fleet.{playbook}"
    words = [plays.ansible_playbook(), "-i", str(HERE / "inventory"), known, *options]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout[-6000:]}{done.stderr}"
    recaps = plays.parse(done.stdout)
    return sum(recap.changed for recap in recaps), done.stdout


def parse(text: str) -> dict[Sample, float]:
    """The samples of a text by name and labels; none may be there twice."""
    found: dict[Sample, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        match = _SAMPLE.match(line)
        assert match, line
        sample = match[1], frozenset(_LABEL.findall(match[2] or ""))
        assert sample not in found, line
        found[sample] = float(match[3])
    return found


def scrape() -> dict[Sample, float]:
    """What the exporter tells."""
    return parse(inside("curl", "-sSf", "--max-time", "30", URL))


def values(found: dict[Sample, float], name: str, **labels: str) -> list[float]:
    """The numbers of the samples with these labels, and any others."""
    wanted = set(labels.items())
    return [
        value
        for (each, own), value in found.items()
        if each == f"ebpf_fleet_{name}" and wanted <= own
    ]


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    numbers = values(found, name, **labels)
    assert len(numbers) == 1, (name, labels, numbers)
    return numbers[0]
