# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and scripts on the hosts of the bench's lab, and how long they took."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fabric
import layout
from converge_states import SHELL_PINS, State
from layout import Host

HERE = Path(__file__).resolve().parent
THERE = "/run/bench"  # where a host gets the shell's files
PYTHON = "/usr/bin/python3"
# Stands in for Python on a host: notes how many bytes it was given, and how many nanoseconds it took.
TIMED_PYTHON = "/run/timed-python"
TIMED_LOG = "/run/timed-python.log"
TIMED = f"""#!/bin/sh
given=$(mktemp)
cat >"$given"
began=$(date +%s%N)
{PYTHON} "$@" <"$given"
code=$?
echo "$(wc -c <"$given") $(($(date +%s%N) - began))" >>{TIMED_LOG}
rm "$given"
exit $code
"""
EXCHANGE = re.compile(r"^<[^>]+> SSH: EXEC (?!ssh .* -O )", re.MULTILINE)

Play = dict[str, Any]


class RunError(RuntimeError):
    """A playbook or script failed."""


@dataclass(frozen=True)
class Timing:
    """One task on one host, in seconds."""

    task: str
    host: str
    began: float
    ended: float
    changed: bool
    actions: tuple[str, ...]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Played:
    """A playbook's tasks in the order in which they ended, and what Ansible printed."""

    timings: list[Timing]
    output: str

    def of(self, task: str, host: str = "") -> list[Timing]:
        """Those of that name."""
        return [each for each in self.timings if each.task == task and host in ("", each.host)]

    def sums(self, prefix: str) -> list[float]:
        """For each name PREFIX 0, PREFIX 1, …: what all its tasks took together, in seconds."""
        found: dict[int, float] = {}
        for each in self.timings:
            name, _space, number = each.task.rpartition(" ")
            if name == prefix:
                found[int(number)] = found.get(int(number), 0.0) + each.seconds
        return [found[number] for number in sorted(found)]

    @property
    def exchanges(self) -> int:
        """Commands and files that went over ssh; needs output that says so."""
        return len(EXCHANGE.findall(self.output))


def play(hosts: Iterable[Host], *tasks: tuple[str, dict[str, Any]]) -> Play:
    """Tasks on hosts, each with its name."""
    named = [{"name": name, **task} for name, task in tasks]
    return {
        "hosts": [host.name for host in hosts],
        "gather_facts": False,
        "tasks": named,
    }


def run(
    scratch: Path, plays: Sequence[Play], forks: int = 1, timed: bool = False, verbose: bool = False
) -> Played:
    """Run a playbook. Raises RunError when a task failed.

    timed: with TIMED_PYTHON for Python. verbose: for `exchanges`.
    """
    playbook, inventory = scratch / "play.json", scratch / "inventory.json"
    watch = scratch / "stopwatch"
    watch.unlink(missing_ok=True)
    playbook.write_text(json.dumps(plays), encoding="utf-8")
    known = {
        "ansible_user": "root",
        "ansible_python_interpreter": TIMED_PYTHON if timed else PYTHON,
        "ansible_ssh_common_args": f"-F {layout.SSH_CONFIG}",
    }
    hosts = {host.name: {} for host in layout.HOSTS}
    inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": known}}), encoding="utf-8")
    command = [_beside("ansible-playbook"), "-i", str(inventory), str(playbook)]
    command += ["-vvvv"] if verbose else []
    settings = {
        "ANSIBLE_CONFIG": str(layout.LAB / "ansible.cfg"),
        "ANSIBLE_FORKS": str(forks),
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "stopwatch",
        "ANSIBLE_NOCOLOR": "1",
        "STOPWATCH": str(watch),
    }
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **settings},
    )
    lines = watch.read_text(encoding="utf-8").splitlines() if watch.exists() else []
    seen = [json.loads(line) for line in lines]
    wrong = [
        f"{each['host']}: {each['task']}: {each['msg']}" for each in seen if each["how"] != "ok"
    ]
    if done.returncode or wrong:
        said = "\n".join(wrong) or "\n".join(done.stdout.splitlines()[-20:])
        raise RunError(f"ansible-playbook failed ({done.returncode}):\n{said}")
    timings = [
        Timing(
            *(each[key] for key in ("task", "host", "began", "ended", "changed")),
            tuple(each["actions"]),
        )
        for each in seen
    ]
    return Played(timings, done.stdout)


def _beside(tool: str) -> str:
    found = Path(sys.executable).with_name(tool)
    return str(found) if found.exists() else tool


def received(host: Host) -> int:
    """Bytes that the host's interface has received so far."""
    pid = fabric.init_pid(host)
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-s", "-j", "link", "show", "eth0"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return int(json.loads(shown)[0]["stats64"]["rx"]["bytes"])


def prepare(host: Host) -> None:
    """What the measurements need on a host."""
    fabric.ssh(host, f"mkdir -p /sys/fs/cgroup/bench; cat >{TIMED_PYTHON}", stdin=TIMED)
    fabric.ssh(host, "chmod", "755", TIMED_PYTHON)


def in_python(host: Host) -> tuple[int, float]:
    """What TIMED_PYTHON noted since the last call: bytes and milliseconds, of all runs together."""
    text = fabric.ssh(host, f"cat {TIMED_LOG}; rm {TIMED_LOG}").stdout
    runs = [line.split() for line in text.splitlines()]
    return sum(int(size) for size, _ns in runs), sum(int(ns) for _size, ns in runs) / 1e6


def entries(host: Host, state: State) -> dict[str, str]:
    """Commands for bpftool that make the entries that a converged host's maps have, in two files."""
    short, long = [], []
    for name in state.maps:
        pin = f"/sys/fs/bpf/ebpf_fleet/{state.name}/maps/{name}"
        dumped = json.loads(fabric.ssh(host, "bpftool", "-j", "map", "dump", "pinned", pin).stdout)
        for entry in dumped:
            key, value = (
                " ".join(byte.removeprefix("0x") for byte in entry[part])
                for part in ("key", "value")
            )
            if value.strip("0 "):
                where = f"map update pinned {SHELL_PINS}/maps/{name}"
                (short if len(entry["value"]) < 1000 else long).append(
                    f"{where} key hex {key} value hex {value}\n"
                )
    return {"entries": "".join(short), "long_entries": "".join(long)}


def script(host: Host, state: State, release: int, files: dict[str, str], what: str) -> float:
    """Send the script and its files and run it, over one ssh session; the seconds that took."""
    sent = BytesIO()
    with tarfile.open(fileobj=sent, mode="w") as archive:
        archive.add(state.script, "script")
        if what != "down":
            archive.add(state.objects[release], "object")
        if what == "up":
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, BytesIO(text.encode()))
    there = f"mkdir -p {THERE} && tar -xf - -C {THERE} && sh {THERE}/script {what}"
    command = ["ssh", "-F", str(layout.SSH_CONFIG), host.name, there]
    began = time.monotonic()
    done = subprocess.run(command, check=False, input=sent.getvalue(), capture_output=True)
    took = time.monotonic() - began
    if done.returncode:
        raise RunError(f"{host.name}: {state.script.name} {what}: {done.stderr.decode()}")
    return took
