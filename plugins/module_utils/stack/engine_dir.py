# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The engine on the host: this code, unpacked and compiled once, for every later run and for boots.

    /var/lib/ebpf-fleet/engine/SHA256/    what the packed engine with this digest holds
                               current -> SHA256

An engine appears by one rename, complete and on disk (unpack). One that a process runs is not
removed: such a process holds a shared lock on its directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator

from ..bpf import files, journal
from ..resource.errors import Failure
from . import store

_CURRENT = "current"
_THIS = os.path.realpath(__file__)  # found now: `current`, by which it may run, can go or change


def base() -> str:
    """Where the engines are."""
    return os.path.join(store.ROOT, store.ENGINE)


def current() -> str:
    """The digest of the engine that boots and the command run, "" for none."""
    try:
        return os.readlink(os.path.join(base(), _CURRENT))
    except OSError:
        return ""


def running() -> str:
    """The digest of the engine that this process runs, "" when it runs from elsewhere."""
    return os.path.basename(_home())


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
    for name in (sha, running(), current()):
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
