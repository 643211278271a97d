# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Mounts of this mount namespace: which there are, and how bpffs is mounted and unmounted.

mount(2), umount2(2) and the fsopen(2) family, called directly: no program on the host is needed.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from dataclasses import dataclass

from . import journal
from .syscall import Fd

MOUNTINFO = "/proc/self/mountinfo"

# include/uapi/linux/mount.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
_MNT_EXPIRE, _UMOUNT_NOFOLLOW = 4, 8  # include/linux/fs.h, umount2(2)

# asm-generic/unistd.h; these numbers are the same on every architecture.
_NR_OPEN_TREE, _NR_MOVE_MOUNT = 428, 429
_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6  # include/uapi/linux/mount.h
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100  # include/uapi/linux/fcntl.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo. ``device`` is ``major:minor``: equal for mounts of one file system."""

    id: int
    parent: int
    device: str
    root: str  # the directory of the file system that is mounted; "/" unless it is a bind mount
    point: str
    fstype: str


def parse(mountinfo: str) -> tuple[Mount, ...]:
    """The mounts in a text of /proc/pid/mountinfo (proc_pid_mountinfo(5)), in its order."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        number, parent, device, root, point = fields[:5]
        fstype = fields[fields.index("-", 6) + 1]
        found.append(
            Mount(int(number), int(parent), device, _unescape(root), _unescape(point), fstype)
        )
    return tuple(found)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def magic_of(path: str) -> int:
    """What kind of file system ``path`` lies in: its number in include/uapi/linux/magic.h.

    Raises OSError (ENOENT) if the path is gone.
    """
    memory = ctypes.create_string_buffer(256)  # struct statfs; f_type is the first long
    if _libc.statfs(os.fsencode(path), memory) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    kind: int = struct.unpack_from("=L", memory, 0)[0]
    return kind & 0xFFFFFFFF


def mounts() -> tuple[Mount, ...]:
    """The mounts of this mount namespace, oldest first."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def visible(all_mounts: tuple[Mount, ...], fstype: str) -> tuple[Mount, ...]:
    """The mounts of ``fstype`` that a path reaches: no later mount lies over them."""
    return tuple(
        mount
        for mount in all_mounts
        if mount.fstype == fstype and covering(all_mounts, mount) is None
    )


def covering(all_mounts: tuple[Mount, ...], mount: Mount) -> Mount | None:
    """The mount that hides ``mount``: one on the same point, or on a directory above it.

    A path goes from mount to mount, each standing on its parent. At each of them another mount may
    turn it away: one on the same parent, at or above the point where the path leaves it.
    """
    by_id = {other.id: other for other in all_mounts}
    level: Mount | None = mount
    point, came_from = mount.point, mount.id
    while level is not None:
        for other in all_mounts:
            above = f"{point}/".startswith(other.point.rstrip("/") + "/")
            if above and other.parent == level.id and other.id not in (came_from, level.id):
                return other
        point, came_from = level.point, level.id
        level = by_id.get(level.parent) if level.parent != level.id else None
    return None


def cgroup2() -> str:
    """Where the cgroup2 hierarchy is mounted, "" when nowhere.

    Of several mounts the one that shows most of the hierarchy, then the shortest path.
    """
    found = [
        (mount.root != "/", len(mount.point), mount.point) for mount in visible(mounts(), "cgroup2")
    ]
    return min(found, default=(False, 0, ""))[2]


def mount_bpffs(path: str, mode: int) -> None:
    """Mount a new BPF file system. ``mode``: permissions of its root. Raises OSError."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    result = _libc.mount(
        b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(flags), f"mode={mode:o}".encode()
    )
    _require(result, f"mount bpffs on {path}")
    journal.undo(f"unmount {path}", lambda: _unmount(path))


def new_bpffs() -> Fd:
    """Make a BPF file system that is mounted nowhere, and ends with the descriptor. Raises OSError.

    fsopen(2) and fsmount(2), Linux 5.2. Its root is reached through /proc/self/fd.
    """
    doing = "make a BPF file system"
    with Fd(_require(_libc.syscall(_NR_FSOPEN, b"bpf", 1), doing)) as context:
        create = _libc.syscall(
            _NR_FSCONFIG, context.number, _FSCONFIG_CMD_CREATE, None, None, ctypes.c_int(0)
        )
        _require(create, doing)
        return Fd(_require(_libc.syscall(_NR_FSMOUNT, context.number, 1, 0), doing))


def _keep(path: str) -> Fd:
    """What is mounted at ``path``, which lasts as long as the descriptor (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    number = _libc.syscall(_NR_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    return Fd(_require(number, f"keep what is mounted on {path}"))


def mount_again(kept: Fd, path: str) -> None:
    """Mount what ``kept`` refers to and is mounted nowhere on ``path`` (move_mount(2))."""
    result = _libc.syscall(
        _NR_MOVE_MOUNT,
        *(kept.number, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH),
    )
    _require(result, f"mount on {path}")


def mount_same(source: str, path: str) -> None:
    """Mount what the directory ``source`` shows on ``path``, too."""
    _mount(os.fsencode(source), path, _MS_BIND, f"mount {source} on {path}")


def make_private(path: str) -> None:
    """Keep what is mounted at and below ``path`` from now on out of other mount namespaces.

    EINVAL when nothing is mounted there.
    """
    _mount(None, path, _MS_REC | _MS_PRIVATE, f"make the mounts below {path} private")


def _mount(source: bytes | None, path: str, flags: int, doing: str) -> None:
    _require(_libc.mount(source, os.fsencode(path), None, ctypes.c_ulong(flags), None), doing)


def unmount(path: str) -> None:
    """Unmount what is on top at ``path``. Raises OSError, EBUSY while anything uses it."""
    if not journal.records():
        _unmount(path)
        return
    with _keep(path) as kept:
        held = journal.hold(kept)
        _unmount(path)
        journal.undo(f"mount {path} again", lambda: mount_again(held, path))


def _unmount(path: str) -> None:
    _require(_libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW), f"unmount {path}")


def rehearse_unmount(path: str) -> None:
    """Ask the kernel whether ``path`` could be unmounted. Raises OSError, EBUSY while it is in use.

    MNT_EXPIRE answers EAGAIN when nothing uses the mount, and marks it for a second call; using
    the mount clears the mark, before (a mark that someone left) and after.
    """
    os.stat(path)
    try:
        _require(_libc.umount2(os.fsencode(path), _MNT_EXPIRE), f"unmount {path}")
    except BlockingIOError:
        os.stat(path)


def _require(result: int, doing: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), doing)
    return result
