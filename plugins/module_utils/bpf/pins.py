# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Pins: names that keep kernel objects alive in a BPF file system.

A name in bpffs holds no dot (the kernel refuses it) and no attributes. ``rename`` replaces a pin
atomically, which is how a new object takes an old one's place (fs: kernel/bpf/inode.c).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from . import journal
from .mounts import magic_of
from .syscall import Buffer, Cmd, Fd, bpf

BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h

# What ``get`` says of what is there and no pin: a file elsewhere, or the kernel's own (maps.debug).
NO_PIN = (errno.EACCES, errno.ENOENT)

_KINDS = {"bpf-prog": "program", "bpf-map": "map", "bpf_link": "link", "bpf-link": "link"}


def is_bpffs(path: str) -> bool:
    """Whether ``path`` lies in a mounted BPF file system. Raises OSError (ENOENT) if it is gone."""
    return magic_of(path) == BPF_FS_MAGIC


def pin(fd: Fd, path: str) -> None:
    """Give the object a name. EEXIST when the name is taken."""
    _pin(fd, path)
    journal.undo(f"unpin {path}", lambda: _unlink(path))


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _pin(fd: Fd, path: str) -> None:
    name = Buffer(os.fsencode(path) + b"\0")
    bpf(Cmd.OBJ_PIN, "QII", name.address, fd.number, 0, doing=path)


def get(path: str) -> Fd:
    """Open the object pinned at ``path``. ENOENT when there is none, EACCES when it is no pin."""
    name = Buffer(os.fsencode(path) + b"\0")
    return Fd(bpf(Cmd.OBJ_GET, "QII", name.address, 0, 0, doing=path))


def kind(fd: Fd) -> str:
    """``program``, ``map`` or ``link``: what the descriptor refers to."""
    target = os.readlink(f"/proc/self/fd/{fd.number}").replace("anon_inode:", "").strip("[]")
    return _KINDS.get(target, target)


def staging_path(path: str) -> str:
    """Where an object waits before it takes the name ``path``; the same name at each try."""
    return path + "__next"


def replace(fd: Fd, path: str) -> None:
    """Give the object the name ``path``, atomically taking it from whatever has it."""
    waiting = staging_path(path)
    remove(waiting)
    before = _Before.of(path)
    pin(fd, waiting)
    os.rename(waiting, path)
    if before is None:
        journal.undo(f"move {path} back", lambda: os.rename(path, waiting))
    else:
        journal.undo(f"pin {path} again", before.restore)


def remove(path: str) -> bool:
    """Take the name away; the object lives on while others refer to it. False if there is none."""
    before = _Before.of(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    if before is not None:
        journal.undo(f"pin {path} again", before.restore)
    return True


@dataclass(frozen=True)
class _Before:
    """What had a name, kept while something records so that it can have it again."""

    path: str
    fd: Fd
    status: os.stat_result

    @classmethod
    def of(cls, path: str) -> _Before | None:
        """What has the name now; None for nothing, a directory, or when nothing records."""
        if not journal.records():
            return None
        try:
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                return None  # which no pin takes the place of
            with get(path) as fd:
                return cls(path, journal.hold(fd), status)
        except FileNotFoundError:
            return None

    def restore(self) -> None:
        """Give it the name again, from whatever has it by now, with owner and permissions."""
        taken = os.path.lexists(self.path)
        path = staging_path(self.path) if taken else self.path
        _pin(self.fd, path)
        os.chown(path, self.status.st_uid, self.status.st_gid)
        os.chmod(path, stat.S_IMODE(self.status.st_mode))
        if taken:
            os.rename(path, self.path)
