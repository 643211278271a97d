# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files, symbolic links and directories: changed as a whole, on disk when done, and undoable.

A change is made under a temporary name, synced, and renamed; then the directory is synced. After a
loss of power there is the old or the new, never a part. Under a journal every change can be taken
back.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

from . import journal

_STAGED, _DOOMED = ".next", ".gone"


def staging_path(path: str) -> str:
    """Where what is to be at ``path`` is made; the same name at each try."""
    return path + _STAGED


def doomed_path(path: str) -> str:
    """Where a directory that is removed goes first; a killed run leaves it there."""
    return path + _DOOMED


def write_atomic(path: str, content: bytes, mode: int = 0o644) -> None:
    """Give the file this content and these permissions at once. Raises OSError.

    A symbolic link at ``path`` is replaced, not followed.
    """
    back = _way_back(path)
    _write(path, content, mode, None, lambda: journal.undo(f"put {path} back", back))


def symlink_atomic(target: str, path: str) -> None:
    """Let ``path`` be a symbolic link to ``target``, in the place of the file or link there."""
    back = _way_back(path)
    _link(target, path, lambda: journal.undo(f"put {path} back", back))


def remove(path: str) -> bool:
    """Remove the file or symbolic link; False if there is none."""
    back = _way_back(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    journal.undo(f"put {path} back", back)
    _sync_parent(path)
    return True


def set_mode(path: str, mode: int) -> None:
    """Change the permissions of what is at ``path``."""
    before = stat.S_IMODE(os.stat(path).st_mode)
    os.chmod(path, mode)
    journal.undo(f"set the mode of {path} back", lambda: os.chmod(path, before))


def make_directories(path: str, mode: int = 0o755) -> None:
    """Make the directory and those above it that are missing. FileExistsError for a file.

    ``mode`` is the directory's own; those above get what the umask leaves, as with os.makedirs.
    """
    last, missing = path, []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        _make_directory(directory, mode if directory == last else 0o777)


def _make_directory(path: str, mode: int) -> None:
    os.mkdir(path, mode)
    journal.undo(f"remove {path}", lambda: os.rmdir(path))
    _sync_parent(path)


def remove_directory(path: str) -> bool:
    """Remove the directory if it is there and empty; False if not."""
    try:
        before = os.stat(path)
        os.rmdir(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
            return False
        raise
    journal.undo(f"make {path} again", lambda: _make_as(path, before))
    _sync_parent(path)
    return True


def prune_directories(path: str, stop: str) -> None:
    """Remove the empty directories from ``path`` upwards, below ``stop``, which stays."""
    while path.startswith(stop.rstrip("/") + "/") and remove_directory(path):
        path = os.path.dirname(path)


def remove_tree(path: str) -> bool:
    """Remove a directory with all that is in it; False if there is none.

    It loses its name at once; its contents go when nothing can need them any more. What a killed
    run left under ``doomed_path`` goes first.
    """
    doomed = doomed_path(path)
    if os.path.lexists(doomed):
        _remove_tree(doomed)
    try:
        os.rename(path, doomed)
    except FileNotFoundError:
        return False
    journal.undo(f"put {path} back", lambda: os.rename(doomed, path))
    _sync_parent(path)
    journal.at_commit(f"remove {doomed}", lambda: _remove_tree(doomed))
    return True


def _remove_tree(path: str) -> None:
    import shutil  # takes 5 ms to read, and few want it

    shutil.rmtree(path)


def sync_directory(path: str) -> None:
    """Have on disk which names are in the directory; nothing where there is no disk (cgroupfs)."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(directory)


def _way_back(path: str) -> Callable[[], object]:
    """How to make ``path`` what it is now; read only when something records."""
    if not journal.records():
        return _nothing
    try:
        before = os.lstat(path)
    except FileNotFoundError:
        return lambda: _unlink(path)
    if stat.S_ISLNK(before.st_mode):
        target = os.readlink(path)
        return lambda: _link(target, path)
    with open(path, "rb") as file:
        content = file.read()
    return lambda: _write(path, content, before.st_mode, before)


def _nothing() -> None:
    """The way back that nobody asks for."""


def _unlink(path: str) -> None:
    os.unlink(path)
    _sync_parent(path)


def _write(
    path: str,
    content: bytes,
    mode: int,
    like: os.stat_result | None,
    done: Callable[[], None] = _nothing,
) -> None:
    """``like``: whose owner and times the file gets. ``done`` is told of it before the sync."""
    staged = staging_path(path)
    _discard(staged)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(staged, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            if like is not None:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(mode))
            os.fsync(file.fileno())
        if like is not None:
            os.utime(staged, ns=(like.st_atime_ns, like.st_mtime_ns))
        os.rename(staged, path)
    except OSError:
        _discard(staged)
        raise
    done()
    _sync_parent(path)


def _link(target: str, path: str, done: Callable[[], None] = _nothing) -> None:
    staged = staging_path(path)
    _discard(staged)
    os.symlink(target, staged)
    try:
        os.rename(staged, path)
    except OSError:
        _discard(staged)
        raise
    done()
    _sync_parent(path)


def _discard(staged: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(staged)


def _make_as(path: str, before: os.stat_result) -> None:
    os.mkdir(path, 0o700)
    os.chown(path, before.st_uid, before.st_gid)
    os.chmod(path, stat.S_IMODE(before.st_mode))
    _sync_parent(path)


def _sync_parent(path: str) -> None:
    """Have the name ``path`` on disk, or that it is gone."""
    sync_directory(os.path.dirname(path) or ".")
