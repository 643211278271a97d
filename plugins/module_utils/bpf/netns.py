# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Network namespaces, entered by the calling thread with setns(2) alone.

The mount namespace stays: ``ip netns exec`` would replace /sys and hide the pins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator

from . import journal
from .syscall import Fd

NAMED = "/var/run/netns"  # NETNS_RUN_DIR of iproute2

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def path_of(netns: str) -> str:
    """The file of a namespace given by name (of ``ip netns``) or by path; "" is the own one."""
    return os.path.join(NAMED, netns) if netns else ""


def named() -> list[str]:
    """The names that ``ip netns`` lists, sorted."""
    try:
        return sorted(os.listdir(NAMED))
    except FileNotFoundError:
        return []


def inode(path: str) -> int:
    """What identifies the namespace while it exists. ENOENT when there is none."""
    return os.stat(path or _OWN).st_ino


@contextlib.contextmanager
def entered(path: str) -> Iterator[None]:
    """Be in the namespace behind the file ``path`` ("" is the own one), and return in any case.

    Raises OSError: ENOENT when there is no such file, EINVAL when it is no network namespace.
    """
    if not path:
        yield
        return
    with _open(_OWN) as home:
        with _open(path) as target:
            _enter(target, path)
        try:
            yield
        finally:
            _enter(home, _OWN)


@contextlib.contextmanager
def scratch() -> Iterator[None]:
    """Be in a new namespace that has only ``lo`` (ifindex 1) and ends with the context."""
    with _open(_OWN) as home:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            _fail("make a network namespace")
        try:
            with journal.paused():
                yield
        finally:
            _enter(home, _OWN)


def undo(what: str, action: Callable[[], object]) -> None:
    """``journal.undo`` for what is done in a network namespace: it is undone in the same one."""
    if not journal.records():
        return
    with _open(_OWN) as here:
        held = journal.hold(here)

    def back() -> None:
        with _open(_OWN) as home:
            _enter(held, what)
            try:
                action()
            finally:
                _enter(home, _OWN)

    journal.undo(what, back)


def _open(path: str) -> Fd:
    return Fd(os.open(path, os.O_RDONLY))


def _enter(namespace: Fd, path: str) -> None:
    # os.setns exists since Python 3.12 only.
    if _libc.setns(namespace.number, _CLONE_NEWNET) != 0:
        _fail(path)


def _fail(doing: str) -> None:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), doing)
