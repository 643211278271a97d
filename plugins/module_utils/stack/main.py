# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The engine's doors: one function for a request, and the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..resource.errors import Failure, from_os_error, require_root
from ..resource.lock import host_lock
from . import confirm, engine_dir, release, status

Answer = dict[str, Any]

_LOCK_TIMEOUT = 60

_REQUESTS: Mapping[str, Callable[[Mapping[str, Any], bool], Answer]] = {
    "deploy": release.deploy,
    "activate": release.activate,
    "withdraw": release.withdraw,
    "remove": release.remove,
    "forget": release.forget,
    "confirm": confirm.confirm,
    "status": lambda request, _check: status.status(request),
}


def handle(request: Mapping[str, Any], check: bool) -> Answer:
    """Do what a request says, or in check mode say what that would do.

    ``do`` is one of deploy (manifest, and optionally blobs, a directory of objects by SHA-256;
    confirm_timeout, confirm_all, keep, run, engine), activate, withdraw, forget, confirm (name,
    release), remove (name), status (name or nothing). A deployment of objects that are not on the
    host answers ``lacks`` and does nothing. Raises Failure.
    """
    step = _REQUESTS.get(str(request.get("do")))
    if step is None:
        raise Failure(f"do: {request.get('do')!r} is none; there are: {', '.join(_REQUESTS)}")
    require_root()
    try:
        with engine_dir.in_use(), host_lock(release.number(request, "lock_timeout", _LOCK_TIMEOUT)):
            return step(request, check)
    except OSError as error:
        raise from_os_error(error, str(error.filename or "the release")) from error


def install_engine(pyz: str, sha: str) -> None:
    """Unpack the engine whose file has this SHA-256, in hex, unless it is there. Raises Failure."""
    from . import unpack  # takes long to import, and a host needs it once

    unpack.install(pyz, sha)


def main(arguments: Sequence[str]) -> int:
    """The command ebpf-fleet. Returns its exit status."""
    from . import command  # only the command line needs it

    return command.run(arguments)
