# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""``ebpf-fleet metrics``: printed, kept in a file for node_exporter, or served by HTTP.

A process that stays does not hold its engine in place: it has read all of it, and starts again by
the new one when the host gets another.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..bpf import files
from ..resource.errors import Failure
from ..stack import engine_dir
from . import collect, exporter
from .family import render
from .pace import Pace

_LOOK_SECONDS = 5.0  # how often an exporter looks for another release or another engine


@dataclass(frozen=True)
class Options:
    """Where the metrics go: to ``listen`` (ADDRESS:PORT), into the file ``write``, else out.

    ``every`` is in seconds, 0 for once. ``arguments`` are what the command was called with.
    """

    listen: str
    write: str
    every: float
    foreign: bool
    arguments: tuple[str, ...]


def run(options: Options) -> int:
    """Do it; returns the exit status. What stays ends with SIGTERM or SIGINT. Raises Failure."""
    pace = collect.pace(options.foreign)
    if options.listen:
        address, port = exporter.place(options.listen)
        exporter.serve(pace, address, port)
        return _stay(lambda: pace.renew(slow=True), _LOOK_SECONDS, options.arguments)
    if options.write and options.every:
        return _stay(lambda: _write(pace, options.write), options.every, options.arguments)
    if options.write:
        _write(pace, options.write)
    else:
        sys.stdout.write(_text(pace))
    return 1 if _complain(pace) else 0


def _write(pace: Pace, path: str) -> None:
    """Replace the file as a whole: who reads it has either the old or the new one."""
    if not path.endswith(".prom"):
        raise Failure(f"{path!r} does not end in .prom, and node_exporter reads no other file")
    files.write_atomic(path, _text(pace).encode(), 0o644)


def _text(pace: Pace) -> str:
    for slow in (False, True):
        pace.renew(slow)
    return render(pace.told())


def _complain(pace: Pace) -> bool:
    problems = list(pace.problems())
    for problem in problems:
        sys.stderr.write(f"ebpf-fleet: {problem}\n")
    return bool(problems)


def _stay(do: Callable[[], None], seconds: float, arguments: Sequence[str]) -> int:
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    own = engine_dir.running()
    while not ended.is_set():
        do()
        ended.wait(seconds)
        current = engine_dir.current()
        if own and current not in ("", own):
            program = os.path.join(engine_dir.base(), current)
            os.execv(sys.executable, [sys.executable, "-I", program, *arguments])
    return 0
