# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A place to try things: this host with copies of its BPF file systems, seen by nobody else.

In a mount namespace of its own the process finds every pin at its path, in a file system that is
its own: it may pin, replace and remove there, and the host does not notice. Only names are copied.
The objects behind them are the host's, so a link must not be updated, nor a map written.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from . import mounts, pins
from .mounts import Mount
from .syscall import Fd

_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_OWN = "/proc/thread-self/ns/mnt"

_libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def private(mounted: Sequence[str] = ()) -> Iterator[None]:
    """Be in such a place, and leave it in any case.

    ``mounted`` are directories that get a BPF file system, too, unless they are in one. Whatever
    was pinned inside lasts only as long as a descriptor of it. Works in the calling thread; raises
    OSError.
    """
    here = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_open(_OWN, os.O_RDONLY | os.O_CLOEXEC))
        root = stack.enter_context(_open("/", here))
        directory = stack.enter_context(_open(".", here))
        _require(_libc.unshare(_CLONE_NEWNS), "make a mount namespace")
        try:
            _seclude()
            _copy_all(mounted)
            yield
        finally:
            # setns(2) goes to the root of the namespace, which a chroot(2) may have left.
            _require(_libc.setns(home.number, _CLONE_NEWNS), "return to the host's mounts")
            os.fchdir(root.number)
            os.chroot(".")
            os.fchdir(directory.number)


def _open(path: str, flags: int) -> Fd:
    return Fd(os.open(path, flags))


def _seclude() -> None:
    """Mounts made here must not show up on the host. In a chroot the root may be no mount."""
    try:
        mounts.make_private("/")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        for mount in mounts.mounts():
            if os.path.ismount(mount.point):
                mounts.make_private(mount.point)


def _copy_all(mounted: Sequence[str]) -> None:
    """First all copies are made, as each hides what it is mounted on."""
    with contextlib.ExitStack() as stack:
        copies: dict[tuple[str, str], Fd] = {}
        points: dict[tuple[str, str], str] = {}
        found = _in_use(mounts.mounts())
        for mount in found:
            if (mount.device, mount.root) not in copies:
                made = stack.enter_context(mounts.new_bpffs())
                _copy(mount.point, f"/proc/self/fd/{made.number}")
                copies[mount.device, mount.root] = made
        for mount in found:
            same = (mount.device, mount.root)
            if same in points:
                mounts.mount_same(points[same], mount.point)
            else:
                mounts.mount_again(copies[same], mount.point)
                points[same] = mount.point
    for path in mounted:
        if os.path.isdir(path) and not pins.is_bpffs(path):
            with mounts.new_bpffs() as fresh:
                mounts.mount_again(fresh, path)


def _in_use(table: tuple[Mount, ...]) -> list[Mount]:
    """One mount for each point, those above before those below.

    One that was mounted over the root of this process is in the table, and no path leads into it.
    """
    points = {mount.point: mount for mount in mounts.visible(table, "bpf")}
    return [points[point] for point in sorted(points) if pins.is_bpffs(point)]


def _copy(source: str, target: str) -> None:
    """Give what has a name below ``source`` the same name below ``target``."""
    _like(source, target)
    with os.scandir(source) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        copy = f"{target}/{entry.name}"
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), copy)
        elif entry.is_dir(follow_symlinks=False):
            os.mkdir(copy)
            if not os.path.ismount(entry.path):
                _copy(entry.path, copy)
        elif "." not in entry.name:  # names with a dot are the kernel's own (maps.debug)
            _copy_pin(entry.path, copy)


def _copy_pin(source: str, target: str) -> None:
    try:
        with pins.get(source) as fd:
            pins.pin(fd, target)
        _like(source, target)
    except OSError as error:
        if error.errno not in pins.NO_PIN:
            raise


def _like(source: str, target: str) -> None:
    """Owner and permissions."""
    status = os.stat(source)
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))


def _require(result: int, doing: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), doing)
