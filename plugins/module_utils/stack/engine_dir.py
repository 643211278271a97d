# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The engine on the host: this code, unpacked and compiled once, for every later run and for boots.

    /var/lib/ebpf-fleet/engine/SHA256/    what the packed engine with this digest holds
                               current -> SHA256

An engine appears by one rename, complete and on disk. One that a process runs is not removed: such
a process holds a shared lock on its directory.
"""

from __future__ import annotations

import compileall
import contextlib
import ctypes
import fcntl
import hashlib
import os
import py_compile
import shutil
import zipfile
from collections.abc import Iterator

from ..bpf import files, journal
from ..resource.errors import Failure, from_os_error
from ..resource.lock import host_lock
from . import store

_CURRENT = "current"
_LOCK_SECONDS = 60
_THIS = os.path.realpath(__file__)  # found now: `current`, by which it may run, can go or change

_libc = ctypes.CDLL(None, use_errno=True)


def base() -> str:
    """Where the engines are."""
    return os.path.join(store.ROOT, store.ENGINE)


def install(pyz: str, sha: str) -> None:
    """Unpack the engine whose file has this SHA-256, in hex, unless it is there. Raises Failure."""
    target = os.path.join(base(), sha)
    if os.path.isdir(target):
        return
    if not store.has_content(pyz, sha):
        raise Failure(f"{pyz} does not have the SHA-256 {sha}; it came damaged: run it again")
    with host_lock(_LOCK_SECONDS):
        if not os.path.isdir(target):
            try:
                _unpack(pyz, target)
            except OSError as error:
                raise from_os_error(error, f"install the engine in {target}") from error


def _unpack(pyz: str, target: str) -> None:
    staged = files.staging_path(target)
    files.make_directories(base(), 0o700)
    if os.path.lexists(staged):
        shutil.rmtree(staged)
    try:
        with zipfile.ZipFile(pyz) as packed:
            packed.extractall(staged)
        # Nobody edits these sources, so nobody has to compare their times with the compiled ones.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(staged, quiet=2, invalidation_mode=mode)
        os.chmod(staged, 0o700)
        _sync_file_system(staged)
        os.rename(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    files.sync_directory(base())


def _sync_file_system(path: str) -> None:
    """syncfs(2): one call for some hundred files."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(directory) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)
    finally:
        os.close(directory)


def current() -> str:
    """The digest of the engine that boots and the command run, "" for none."""
    try:
        return os.readlink(os.path.join(base(), _CURRENT))
    except OSError:
        return ""


def actions(sha: str) -> list[str]:
    """What ``switch`` would do, for people."""
    return [f"install engine {sha[:12]}"] if sha and current() != sha else []


def switch(sha: str) -> None:
    """Let boots and the command run the engine ``sha``, which is installed; remove the others."""
    if not sha or current() == sha:
        return
    if not os.path.isdir(os.path.join(base(), sha)):
        raise Failure(f"engine {sha} is not installed below {base()}; run it again")
    files.symlink_atomic(sha, os.path.join(base(), _CURRENT))
    journal.at_commit("remove engines that nothing uses", lambda: _remove_others(sha))


def leave(last: bool) -> None:
    """Remove all engines, the running one included, when the last stack is gone."""
    if last:
        journal.at_commit(f"remove {base()}", _remove_all)


def program(sha: str = "") -> str:
    """A directory that Python runs as the engine: ``sha``, else this one, else the current one."""
    for name in (sha, os.path.basename(_home()), current()):
        path = os.path.join(base(), name)
        if name and os.path.isdir(path):
            return path
    raise Failure(
        f"there is no engine below {base()} for the guard that takes an unconfirmed change back; "
        "deploy with bpf_stack, which installs it, or set confirm_timeout: 0"
    )


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """Keep the engine that this process runs from being removed."""
    home = _home()
    if not home:
        yield
        return
    try:
        directory = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Failure(f"{home} was removed meanwhile; run it again") from error
    try:
        fcntl.flock(directory, fcntl.LOCK_SH)
        yield
    finally:
        os.close(directory)


def _home() -> str:
    """The directory of the engine that this process runs, "" when it runs from elsewhere."""
    above = os.path.dirname(os.path.dirname(os.path.dirname(_THIS)))
    return above if os.path.dirname(above) == os.path.realpath(base()) else ""


def _remove_others(sha: str) -> None:
    for name in sorted(os.listdir(base())):
        if name not in (_CURRENT, sha):
            _remove(os.path.join(base(), name))


def _remove_all() -> None:
    if not os.path.isdir(base()):
        return
    files.remove(os.path.join(base(), _CURRENT))
    own = os.path.basename(_home())
    for name in sorted(os.listdir(base())):
        if name != own:
            _remove(os.path.join(base(), name))
    if own:
        shutil.rmtree(os.path.join(base(), own))
    with contextlib.suppress(OSError):
        os.rmdir(base())
        os.rmdir(store.ROOT)


def _remove(path: str) -> None:
    """Remove an engine that no process runs; it loses its name before its files."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.endswith(files.doomed_path("")):
            os.rename(path, files.doomed_path(path))
            path = files.doomed_path(path)
        shutil.rmtree(path)
    except BlockingIOError:
        return
    finally:
        os.close(directory)


def digest(pyz: str) -> str:
    """SHA-256 of a file, in hex."""
    with open(pyz, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
