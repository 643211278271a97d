# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab's tests ask: the lab's command, its hosts, and the machine for traces of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cgroups
import fabric
from layout import HOSTS, LAB, NAME, STATE, Host


@dataclass(frozen=True)
class Traces:
    """What of the lab can be found on the machine; others may use it at the same time."""

    mounts: tuple[str, ...]
    links: tuple[str, ...]
    named_netns: tuple[str, ...]
    cgroup: bool
    state: bool
    processes: tuple[int, ...]


NONE = Traces((), (), (), False, False, ())


def traces() -> Traces:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    addresses = [path.read_text() for path in Path("/sys/class/net").glob("*/address")]
    names = out("ip", "netns", "list").split()
    return Traces(
        mounts=tuple(line for line in mounts if NAME in line),
        links=tuple(address for address in addresses if address.startswith("02:eb:0f:")),
        named_netns=tuple(
            name for name in names if name.startswith((NAME, *(host.name for host in HOSTS)))
        ),
        cgroup=cgroups.lab_cgroup().exists(),
        state=STATE.exists(),
        processes=tuple(lab_processes()),
    )


def out(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# Somebody who is not root, and reads a checkout wherever it is.
NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
)


def lab(
    command: str, through: tuple[str, ...] = (), **options: object
) -> subprocess.CompletedProcess[str]:
    arguments = [*through, sys.executable, str(LAB / "lab.py"), command]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def must(command: str) -> str:
    done = lab(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on(host: Host, *command: str) -> str:
    return fabric.ssh(host, *command).stdout


def lab_processes() -> list[int]:
    """Live processes that mention the lab or are in its cgroup, wherever they are."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            group = (directory / "cgroup").read_text(encoding="ascii")
            state = (directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        ours = b"/run/ebpf-fleet-lab" in command or f"0::/{NAME}" in group
        if ours and state != "Z":
            found.append(int(directory.name))
    return found
