# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of a run, found by what they were started as: no list of them can be stale."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from layout import Run
from problem import Problem
from qemu import PROGRAM

END_SECONDS = 10


def machines(run: Run) -> dict[str, int]:
    """Process ids of the run's QEMUs, by machine."""
    found = {}
    for pid, words in _processes():
        if Path(words[0]).name == PROGRAM and "-name" in words:
            name = words[words.index("-name") + 1]
            if name.startswith(f"{run.namespace}/"):
                found[name.partition("/")[2]] = pid
    return found


def masters(run: Run) -> list[int]:
    """Process ids of the connections that ssh keeps open to the run's machines."""
    title = f"ssh: {run.ssh_masters}/"
    return [pid for pid, words in _processes() if words[0].startswith(title)]


def end(pid: int) -> None:
    """End a process that was found here. Raises Problem when it does not end."""
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            if not _ended(descriptor, END_SECONDS):
                raise Problem(f"process {pid} does not end")
        finally:
            os.close(descriptor)


def ends_itself(pid: int, seconds: float) -> bool:
    """Whether a process ends within that time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return _ended(descriptor, seconds)
    finally:
        os.close(descriptor)


def _ended(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _processes() -> Iterator[tuple[int, list[str]]]:
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                yield int(path.name), words
