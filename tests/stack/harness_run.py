# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a program, step by step: each step may be let through, made to fail, or be the end of the process.

The program is a function that is called in a fork of this process. A fork of an interpreter that has imported the
engine is what the engine's command is after its imports, twenty times as fast. SIGKILL at a step hits before the
kernel has seen it, so that killing at each step in turn kills after each step in turn.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import harness_seccomp as seccomp
from harness_steps import BPF_READS, Step, explain

ERRNOS = ("EPERM", "ENOMEM", "ENOSPC", "EBUSY", "EINTR")
KILL = "SIGKILL"
END = (1 << 30, 0)  # the address of what comes after the last step
PATIENCE = 60.0  # seconds until a run counts as hanging
REPORT = 900  # the descriptor that a child reports on: no file of the program's own gets so high a number
PR_SET_PDEATHSIG = 1  # linux/prctl.h

Program = Callable[[], int]


@dataclass(frozen=True)
class Fault:
    """What happens at which step: an errno by name, or KILL."""

    address: tuple[int, int]
    what: str

    def __str__(self) -> str:
        number, read = self.address
        return f"{self.what} at step {number}{f'.{read}' if read else ''}"


@dataclass(frozen=True)
class Run:
    """What came of a run. `status` is as subprocess has it; `hit` is the step that the fault struck."""

    status: int
    output: str
    errors: str
    steps: tuple[Step, ...]
    hit: Step | None
    hangs: bool

    @property
    def changes(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if not step.read)


@dataclass
class _Course:
    """The state of a run under supervision."""

    child: int
    fault: Fault | None
    steps: list[Step] = field(default_factory=list)
    number: int = 0
    read: int = 0
    hit: Step | None = None

    def next(self, held: seccomp.Held) -> tuple[Step | None, str]:
        """The step that this call is, if any, and what to do with it."""
        call = explain(held)
        if held.name == "exit_group":
            is_last = self.fault is not None and self.fault.address == END
            return None, KILL if is_last and held.pid == self.child else ""
        if not call.counts:
            return None, ""
        if call.changes:
            self.number, self.read = self.number + 1, 0
        else:
            self.read += 1
        step = Step(
            *(self.number, self.read, call.name, call.about, call.paths),
            *(call.data, call.offset, call.flags),
        )
        self.steps.append(step)
        if self.fault is not None and self.hit is None and self.fault.address == step.address:
            self.hit = step
            return step, self.fault.what
        return step, ""


def run(program: Program, fault: Fault | None = None, reads: bool = True) -> Run:
    """Run the program in a child under supervision, to its end or to that of the fault's making.

    Without `reads` what bpf(2) is only asked is not held, which is most of it, and is no step.
    """
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        told, low = os.pipe()
        tell = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, REPORT)
        os.close(low)
        child = os.fork()
        if child == 0:
            os.close(told)
            _become(program, (given.fileno(), out.fileno(), err.fileno()), tell, reads)
        os.close(tell)
        course = _Course(child, fault)
        hangs = _supervise(child, told, course)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        texts = (out.read().decode(errors="replace"), err.read().decode(errors="replace"))
    return Run(status, *texts, tuple(course.steps), course.hit, hangs)


def together(*programs: Program) -> list[Run]:
    """Run programs at the same time, with nobody watching their steps."""
    with ExitStack() as stack:
        started = []
        for program in programs:
            streams = [stack.enter_context(tempfile.TemporaryFile()) for dummy in range(3)]
            child = os.fork()
            if child == 0:
                _become(program, tuple(each.fileno() for each in streams), None)
            started.append((child, streams))
        runs = []
        for child, (_given, out, err) in started:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            out.seek(0)
            err.seek(0)
            texts = (out.read().decode(errors="replace"), err.read().decode(errors="replace"))
            runs.append(Run(status, *texts, (), None, False))
    return runs


def _become(
    program: Program, streams: tuple[int, ...], tell: int | None, reads: bool = True
) -> None:
    """In the child: everything is held, if there is somebody to tell. Does not return."""
    status = 70
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(0, "r", closefd=False),
            os.fdopen(1, "w", closefd=False),
            os.fdopen(2, "w", closefd=False),
        )
        if tell is not None:
            listener = seccomp.install(
                tuple(seccomp.NUMBERS), tell, () if reads else tuple(BPF_READS)
            )
            os.set_inheritable(listener, False)
            os.write(tell, struct.pack("=i", listener))
            os.close(tell)
        status = program()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _supervise(child: int, told: int, course: _Course) -> bool:
    """Decide about every held call until the child has ended; whether it had to be stopped."""
    number = os.read(told, 4)
    os.close(told)
    if len(number) < 4:
        return False
    pidfd = os.pidfd_open(child)
    listener = seccomp.fetch(pidfd, struct.unpack("=i", number)[0])
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            ready = select.select([listener, pidfd], [], [], max(0.0, deadline - time.monotonic()))
            if pidfd in ready[0]:
                return False
            if not ready[0]:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
            _decide(listener, pidfd, course)
    finally:
        os.close(listener)
        os.close(pidfd)


def _decide(listener: int, pidfd: int, course: _Course) -> None:
    held = seccomp.receive(listener)
    if held is None:
        return
    try:
        _step, what = course.next(held)
    except ProcessLookupError:
        return
    if what == KILL:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return
    seccomp.answer(listener, held, getattr(errno, what) if what else 0)
