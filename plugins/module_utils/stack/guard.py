# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The guard of a change: takes it back when its time is over and nobody has confirmed it."""

from __future__ import annotations

import time

from ..resource.errors import Failure, from_os_error
from ..resource.lock import host_lock
from . import boot, confirm, store
from .say import ERROR, WARNING, say
from .store import State

_LOCK_SECONDS = 600
_ATTEMPTS, _PAUSE_SECONDS = 5, 2


def run(stack: str, token: str) -> int:
    """Wait for the end of the change ``token``, by itself or by the clock. The exit status."""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt * _PAUSE_SECONDS)
        try:
            while confirm.wait(stack, token):
                with host_lock(_LOCK_SECONDS):
                    state = store.load(stack)
                    if _is_due(state, token):
                        return _take_back(state)
            return 0
        except Failure as failure:
            say(ERROR, f"stack {stack}: cannot take the unconfirmed change back: {failure}")
            if boot.is_stopped(failure):
                return 1  # the next boot, or the next run, takes it back
        except OSError as error:
            unforeseen = from_os_error(error, str(error.filename or "the guard"))
            say(ERROR, f"stack {stack}: cannot take the unconfirmed change back: {unforeseen}")
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
