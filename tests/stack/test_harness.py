# SPDX-License-Identifier: GPL-3.0-or-later
"""The harness itself: strace sees the same steps, and a fault hits where it is said to."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from harness_run import END, KILL, Fault, run
from harness_seccomp import NUMBERS

# What is done here, as a program of its own and as a function.
WORK = """
import os, sys
os.makedirs(sys.argv[1])
path = os.path.join(sys.argv[1], "file")
with open(path + ".next", "wb", buffering=0) as file:
    file.write(b"one")
    file.write(b"two")
    os.fsync(file.fileno())
os.rename(path + ".next", path)
os.symlink("file", os.path.join(sys.argv[1], "link"))
os.unlink(path)
"""
CALLS = ("mkdir", "openat", "write", "write", "fsync", "rename", "symlink", "unlink")


def working(directory: Path) -> int:
    sys.argv = ["work", str(directory)]
    exec(compile(WORK, "work", "exec"), {})
    return 0


def test_every_step_is_seen(tmp_path: Path) -> None:
    made = run(lambda: working(tmp_path / "here"))
    assert (made.status, made.errors) == (0, "")
    assert tuple(step.call for step in made.changes) == CALLS
    writes = [(step.data, step.offset) for step in made.changes if step.call == "write"]
    assert writes == [(b"one", 0), (b"two", 3)]


def test_reads_can_be_let_through() -> None:
    """The engine asks bpf(2) a lot; what it changes is seen all the same, with the same numbers."""

    def working() -> int:
        libc = ctypes.CDLL(None)
        for command in (11, 0, 12, 31, 5, 15):  # only MAP_CREATE and PROG_LOAD change something
            libc.syscall(NUMBERS["bpf"], command, None, 0)
        return 0

    assert [step.address for step in run(working).steps] == [
        *((0, 1), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)),
    ]
    assert [step.address for step in run(working, reads=False).steps] == [(1, 0), (2, 0)]


def test_strace_counts_the_same(tmp_path: Path) -> None:
    """Another witness, which shares nothing with the harness but the kernel."""
    log = tmp_path / "log"
    names = ",".join(sorted({*CALLS, "bpf"}))
    traced = ["strace", "-f", "-y", "-e", f"trace={names}", "-o", str(log)]
    subprocess.run([*traced, sys.executable, "-I", "-c", WORK, str(tmp_path / "there")], check=True)
    lines = [line for line in log.read_text().splitlines() if str(tmp_path / "there") in line]
    lines = [line for line in lines if "openat" not in line or "O_CREAT" in line]
    seen = Counter(re.sub(r"^\d+ +(\w+)\(.*", r"\1", line) for line in lines)
    assert seen == Counter(CALLS)


@pytest.mark.parametrize("number", range(1, len(CALLS) + 1))
def test_a_kill_leaves_the_steps_before(tmp_path: Path, number: int) -> None:
    made = run(lambda: working(tmp_path / "here"), Fault((number, 0), KILL))
    assert made.status == -9
    assert made.hit is not None
    assert made.hit.call == CALLS[number - 1]
    assert (tmp_path / "here").exists() == (number > 1)
    assert os.path.lexists(tmp_path / "here/link") == (number > 7)


def test_a_kill_after_the_last_step(tmp_path: Path) -> None:
    made = run(lambda: working(tmp_path / "here"), Fault(END, KILL))
    assert made.status == -9
    assert os.listdir(tmp_path / "here") == ["link"]


@pytest.mark.parametrize("name", ["ENOSPC", "EPERM"])
def test_a_failing_step_does_not_happen(tmp_path: Path, name: str) -> None:
    made = run(lambda: working(tmp_path / "here"), Fault((6, 0), name))
    assert made.status == 70
    assert os.strerror(getattr(errno, name)) in made.errors
    assert os.listdir(tmp_path / "here") == ["file.next"]


def test_an_interrupted_write_is_written(tmp_path: Path) -> None:
    """Python tries again where a signal has interrupted a call (PEP 475)."""
    made = run(lambda: working(tmp_path / "here"), Fault((3, 0), "EINTR"))
    assert made.status == 0
    assert made.hit is not None
    assert len(made.changes) == len(CALLS) + 1
