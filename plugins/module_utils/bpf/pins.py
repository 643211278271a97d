# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Pins: names that keep kernel objects alive in a BPF file system.

A name in bpffs holds no dot (the kernel refuses it) and no attributes. ``rename`` replaces a pin
atomically, which is how a new object takes an old one's place (fs: kernel/bpf/inode.c).
"""

from __future__ import annotations

import errno
import os

from .mounts import magic_of
from .syscall import Buffer, Cmd, Fd, bpf

BPF_FS_MAGIC = 0xCAFE4A11  # include/uapi/linux/magic.h

_KINDS = {"bpf-prog": "program", "bpf-map": "map", "bpf_link": "link", "bpf-link": "link"}


def is_bpffs(path: str) -> bool:
    """Whether ``path`` lies in a mounted BPF file system. Raises OSError (ENOENT) if it is gone."""
    return magic_of(path) == BPF_FS_MAGIC


def pin(fd: Fd, path: str) -> None:
    """Give the object a name. EEXIST when the name is taken."""
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
    pin(fd, waiting)
    os.rename(waiting, path)


def remove(path: str) -> bool:
    """Take the name away; the object lives on while others refer to it. False if there is none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def prune_empty_directories(path: str, stop: str) -> None:
    """Remove the empty directories from ``path`` upwards, below ``stop``, which stays."""
    while path.startswith(stop.rstrip("/") + "/"):
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.ENOENT, errno.EBUSY):
                return
            raise
        path = os.path.dirname(path)
