# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the host runs of its stacks, and whether the kernel still has it; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..resource.errors import Failure, from_os_error
from . import confirm, move, store, transaction
from . import manifest as manifests
from .record import APPLYING, CONFIRM, Pending
from .store import State

IN_SYNC, DRIFTED, UNFINISHED = "in_sync", "drifted", "unfinished"
FALLBACK, REMOVED = "fallback", "removed"


def status(request: Mapping[str, Any]) -> dict[str, Any]:
    """All stacks, or the one that is named. One that cannot be read says so in its condition."""
    name = request.get("name")
    names = [manifests.check_name(name)] if name else store.stacks()
    return {"changed": False, "stacks": [_stack(each) for each in names]}


def _stack(name: str) -> dict[str, Any]:
    try:
        state = store.load(name)
    except Failure as failure:
        return {**_nothing(name), "condition": UNFINISHED, "reason": str(failure)}
    condition, reason, actions, boot = _condition(state)
    current = state.releases.get(state.current) if state.current else None
    return {
        "name": name,
        "condition": condition,
        "reason": reason,
        "actions": actions,
        "active": state.current,
        "running": state.running,
        "predecessor": current.record.predecessor if current and current.record else None,
        "boot": boot,
        "releases": _releases(state),
        "pending": _pending(state.pending),
        "fallback": state.fallback.document() if state.fallback else None,
    }


def _nothing(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "condition": REMOVED,
        "reason": "",
        "actions": [],
        "active": None,
        "running": None,
        "predecessor": None,
        "boot": None,
        "releases": [],
        "pending": None,
        "fallback": None,
    }


def _condition(state: State) -> tuple[str, str, list[str], str | None]:
    """The condition, why, the steps that would end it, and at which part of a boot it comes."""
    actions: list[str] = []
    boot = None
    trouble = ""
    if state.running is not None:
        try:
            boot, actions = _drift(state, state.running)
        except Failure as failure:
            trouble = str(failure)
        except OSError as error:
            trouble = str(from_os_error(error, str(error.filename or "observe")))
    unfinished = _unfinished(state)
    if unfinished:
        return UNFINISHED, unfinished, actions, boot
    if state.fallback is not None:
        return FALLBACK, state.fallback.reason, actions, boot
    if trouble:
        return DRIFTED, trouble, actions, boot
    if actions:
        steps = "1 step differs" if len(actions) == 1 else f"{len(actions)} steps differ"
        return DRIFTED, f"{steps} from release {state.running}", actions, boot
    if state.leftovers:
        left = f"a killed run left {state.leftovers[0]}; deploy again, which removes it"
        return UNFINISHED, left, actions, boot
    if state.current is None:
        return REMOVED, "", actions, boot
    return IN_SYNC, "", actions, boot


def _drift(state: State, release: str) -> tuple[str, list[str]]:
    """What would bring the kernel back to the release."""
    goal = store.manifest(state, release)
    previous, _warnings = move.involved(state)
    result = transaction.converge(
        goal, lambda sha: store.object_path(state.stack, sha), previous, check=True
    )
    return goal.boot, list(result.actions)


def _unfinished(state: State) -> str:
    """Why the stack is neither here nor there, empty when it is somewhere."""
    pending = state.pending
    if pending is None:
        return ""
    goal = pending.release or "nothing"
    if pending.phase == APPLYING:
        return f"the change to {goal} was begun and never finished; deploy it again or withdraw it"
    if confirm.is_over(pending):
        return (
            f"release {goal} was never confirmed, and no guard took it back; confirm it "
            "(bpf_release, state=confirmed), deploy it again or withdraw it"
        )
    back = pending.previous or "nothing"
    return f"release {goal} waits to be confirmed; else it goes back to {back}"


def _releases(state: State) -> list[dict[str, Any]]:
    found = []
    for name, stored in state.releases.items():
        record = stored.record
        found.append(
            {
                "name": name,
                "active": name == state.current,
                "problem": stored.problem,
                "created": record.created if record else None,
                "predecessor": record.predecessor if record else None,
                "activated": list(record.activated) if record else [],
                "reverted": record.reverted if record else None,
                "by": dict(record.by) if record else {},
            }
        )
    return found


def _pending(pending: Pending | None) -> dict[str, Any] | None:
    if pending is None:
        return None
    return {
        "release": pending.release,
        "from": pending.previous,
        "phase": pending.phase,
        "confirm_by": pending.confirm_by if pending.phase == CONFIRM else None,
    }
