# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's cgroups, and what ends every process in them.

Every process of the lab lives below one cgroup, so ending the lab needs no list of process ids that
could be stale: whoever is in there is the lab's, and nobody else is.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from layout import NAME

KILL_SECONDS = 10.0


class LabError(Exception):
    """Something the user can act upon; its text says what to do."""


def cgroup2_mount() -> Path:
    """Where cgroup2 is mounted on this machine; hybrid hierarchies have it beside the others."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _source, where, kind = line.split()[:3]
        if kind == "cgroup2":
            return Path(where)
    raise LabError(
        "no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup (or boot with cgroup2)"
    )


def lab_cgroup() -> Path:
    """The lab's cgroup: a child of this machine's cgroup2 root, whether or not it exists."""
    return cgroup2_mount() / NAME


def make(name: str) -> Path:
    """The cgroup `name` of the lab, made when missing."""
    path = lab_cgroup() / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def processes(top: Path) -> list[int]:
    """Process ids in `top` and below, as this namespace numbers them."""
    return [pid for group in _below(top) for pid in _members(group)]


def remove(top: Path) -> None:
    """End every process in `top` and below, then remove the cgroups, if there are any."""
    _kill(top)
    for group in _below(top):
        _remove(group)


def _remove(group: Path) -> None:
    """The kernel lets go of a cgroup a little after its last process has ended."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            _kill(group)
            time.sleep(0.02)


def _below(top: Path) -> Iterator[Path]:
    """`top` and all below it, deepest first."""
    for directory, _names, _files in os.walk(top, topdown=False):
        yield Path(directory)


def _members(group: Path) -> list[int]:
    text = (group / "cgroup.procs").read_text(encoding="ascii")
    return [int(word) for word in text.split()]


def _kill(top: Path) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    while alive := processes(top):
        if time.monotonic() > deadline:
            raise LabError(
                f"processes {alive} in {top} do not end; look at /proc/PID/stack, then try again"
            )
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)
