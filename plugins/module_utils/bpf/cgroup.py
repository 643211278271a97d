# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Control groups (cgroup2): which directory is which, and which programs the kernel lets in."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from . import hooks, journal, links, mounts, names
from .syscall import Fd

CGROUP2_MAGIC = 0x63677270  # include/uapi/linux/magic.h

# lsm_cgroup programs attach to a kernel function as well, and only by a link.
ATTACH_TYPES = tuple(name for name in names.ATTACH_TYPES if name.startswith("cgroup_"))


def is_cgroup2(path: str) -> bool:
    """Whether ``path`` lies in a cgroup2 file system. Raises OSError (ENOENT) if it is gone."""
    return mounts.magic_of(path) == CGROUP2_MAGIC


def locate(declared: str) -> str:
    """The directory that a declared control group names: absolute, or below the cgroup2 mount.

    systemd and /proc/PID/cgroup write the path below the mount with a leading slash; where no
    such directory exists by itself, it is taken in that sense.
    """
    below = os.path.join(mounts.cgroup2(), declared.lstrip("/"))
    if declared.startswith("/") and (os.path.isdir(declared) or not os.path.isdir(below)):
        return declared
    return below


def create(path: str) -> None:
    """Make the cgroup, with those above it that are missing. Raises OSError."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        _create(directory)


def _create(directory: str) -> None:
    os.mkdir(directory)
    journal.undo(f"remove {directory}", lambda: os.rmdir(directory))


def open_(path: str) -> Fd:
    """Open the cgroup's directory, for hooks and links. Raises OSError."""
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def id_of(path: str) -> int:
    """The id by which links name the cgroup: its directory's inode (kernfs, 64-bit hosts)."""
    return os.stat(path).st_ino


def path_of(cgroup_id: int) -> str:
    """Where the cgroup with this id is, "" when it is gone or below no cgroup2 mount seen here."""
    root = mounts.cgroup2()
    if not root or not cgroup_id:
        return ""
    for directory, _directories, _files in os.walk(root):
        if id_of(directory) == cgroup_id:
            return directory
    return ""


def ancestors(path: str) -> Iterator[str]:
    """The cgroups above ``path``, nearest first, up to the top of the mount."""
    while True:
        path = os.path.dirname(path)
        if path == "/" or not is_cgroup2(path):
            return
        yield path


def forbids_below(attached: hooks.Attached) -> bool | None:
    """Whether a cgroup keeps programs out of all cgroups below it; None to ask its parent.

    hierarchy_allows_attach, kernel/bpf/cgroup.c.
    """
    if not attached.prog_ids:
        return None
    return not attached.flags & (hooks.F_ALLOW_MULTI | hooks.F_ALLOW_OVERRIDE)


def accepts(program: Fd, attach_type: str) -> bool:
    """Whether the kernel would attach the program to this hook of some cgroup.

    Tries it with no cgroup at all: the kernel looks at the program first, then at the cgroup.
    """
    try:
        with journal.paused():
            hooks.attach(-1, program, attach_type, hooks.F_ALLOW_MULTI)
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL):
            return error.errno == errno.EBADF
        raise
    return False


def accepts_link(program: Fd, attach_type: str) -> bool:
    """The same for a link; False where ``accepts`` is True means Linux before 5.7."""
    try:
        with journal.paused():
            links.create(program, -1, attach_type).close()
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EINVAL):
            return error.errno == errno.EBADF
        raise
    return False


def accepted_types(program: Fd) -> tuple[str, ...]:
    """The hooks of a cgroup that the program fits."""
    return tuple(name for name in ATTACH_TYPES if accepts(program, name))


def attached(path: str, attach_type: str) -> tuple[int, ...]:
    """The ids of the programs attached to the cgroup itself; none when it is gone."""
    try:
        with open_(path) as fd:
            return hooks.query(fd.number, attach_type).prog_ids
    except FileNotFoundError:
        return ()
