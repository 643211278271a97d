# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The guard of a change: takes it back when its time is over and nobody has confirmed it."""

from __future__ import annotations

from ..resource.errors import Failure, from_os_error
from ..resource.lock import host_lock
from . import boot, confirm, store
from .say import ERROR, WARNING, say
from .store import State

_LOCK_SECONDS = 600
_ATTEMPTS = 3


def run(stack: str, token: str) -> int:
    """Wait for the end of the change ``token``, by itself or by the clock. The exit status."""
    attempts = _ATTEMPTS
    while attempts:
        try:
            if not confirm.wait(stack, token):
                return 0
            with host_lock(_LOCK_SECONDS):
                state = store.load(stack)
                if _is_due(state, token):
                    return _take_back(state)
        except Failure as failure:
            say(ERROR, f"stack {stack}: cannot take the unconfirmed change back: {failure}")
            attempts -= 1
        except OSError as error:
            unforeseen = from_os_error(error, str(error.filename or "the guard"))
            say(ERROR, f"stack {stack}: cannot take the unconfirmed change back: {unforeseen}")
            attempts -= 1
    return 1


def _is_due(state: State, token: str) -> bool:
    """Look again with the lock held: the change may have ended, or got its time, meanwhile."""
    pending = state.pending
    return pending is not None and pending.token == token and confirm.is_over(pending)


def _take_back(state: State) -> int:
    pending = state.pending
    goal = pending.previous if pending is not None else state.current
    say(WARNING, f"stack {state.stack}: nobody confirmed the change in time; back to {goal}")
    settled = boot.settle(state, goal)
    boot.tell(state.stack, settled)
    return 0 if settled.running is not None or settled.goal is None else 1
