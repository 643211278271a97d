# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""One move of a stack from where it is to a release, or to nothing: kernel and store together.

The store's part is in the transaction's journal. Before the first step it says which change has
begun; after the last it makes the release current. A run that is killed in between leaves that
word, and any of the requests leads on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bpf import journal
from ..resource.errors import Failure
from . import confirm, engine_dir, keep, store, transaction, units
from .manifest import Manifest
from .plan import Plan
from .record import APPLYING, CONFIRM, Pending, Record
from .store import State
from .transaction import Result


@dataclass(frozen=True)
class Move:
    """``record`` is the goal's once it is current. ``back``: where a change leads that is never
    finished or never confirmed. ``files``: where objects are that the store lacks. ``keep``: how
    many releases stay stored, 0 for all. ``confirm_timeout`` is in seconds. ``confirm_all``: also
    for changes that cannot cut the host off, which somebody means to try before they are confirmed.
    """

    state: State
    goal: Manifest
    record: Record
    resolve: Callable[[str], str]
    back: str | None
    files: Mapping[str, str] = field(default_factory=dict)
    keep: int = 0
    confirm_timeout: int = 0
    confirm_all: bool = False
    engine: str = ""

    @property
    def arrives(self) -> bool:
        """Whether the goal is not current yet."""
        return self.state.current != self.goal.release

    @property
    def goes_back(self) -> bool:
        """Whether a change that nobody confirms leads anywhere but to the goal itself."""
        return bool(self.confirm_timeout) and self.back != self.goal.release

    def asks(self, touches_hooks: bool) -> int:
        """Seconds in which the change has to be confirmed, 0 when it need not be."""
        at_risk = touches_hooks or self.confirm_all or _waits_for_another(self)
        return self.confirm_timeout if self.goes_back and at_risk else 0


def way_back(state: State) -> str | None:
    """The release to go back to from a change: the last one that was confirmed."""
    return state.pending.previous if state.pending else state.current


def in_use(state: State) -> set[str | None]:
    """The releases that the kernel may have something of, or may have to go back to."""
    pending, fallback = state.pending, state.fallback
    return {
        state.current,
        pending.release if pending else None,
        pending.previous if pending else None,
        fallback.running if fallback else None,
    }


def run(move: Move, check: bool) -> dict[str, Any]:
    """Make the goal current, all of it or nothing. Returns what Ansible gets."""
    previous, warnings = involved(move.state)
    pending = move.state.pending
    if _waits_for_another(move) and pending is not None:
        warnings.append(
            f"release {pending.release} of stack {move.goal.name} was never confirmed; what comes "
            f"now goes back to {move.back or 'nothing'} unless it is confirmed"
        )
    actions = _store_actions(move)
    token = os.urandom(8).hex()
    result = transaction.converge(
        move.goal,
        move.resolve,
        previous,
        check,
        lambda plan: _begin(move, token, move.asks(plan.touches_hooks)),
        lambda plan: _commit(move, token, move.asks(plan.touches_hooks)),
    )
    if actions and not result.changed and not check:
        with journal.recording():
            _begin(move, token, move.asks(False))
            _commit(move, token, move.asks(False))
    if not (result.changed or actions):
        return _answer(move.state, move.state.current, result, (), warnings)
    state = move.state if check else store.load(move.state.stack)
    answer = _answer(state, move.goal.release, result, actions, warnings)
    if check:
        gone = _surplus(move)
        answer["releases"] = [name for name in answer["releases"] if name not in gone]
    return {**answer, "previous": move.state.current}


def run_removal(
    state: State,
    wipe: bool,
    check: bool,
    resources: Sequence[Mapping[str, Any]] = (),
    drain: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Take the stack out of the kernel; with ``wipe`` out of the store, too."""
    previous, warnings = involved(state)
    actions = _removal_actions(state, wipe)
    token = os.urandom(8).hex()

    def begin(_plan: Plan | None) -> None:
        if state.exists:
            keep.set_pending(state.stack, _pending(None, None, APPLYING, token, 0))

    def commit(_plan: Plan | None) -> None:
        if state.exists:
            keep.set_fallback(state.stack, None)
            keep.set_current(state.stack, None)
            keep.set_pending(state.stack, None)
        if wipe:
            keep.drop_all(state.stack)
        keep.sweep(state.stack)
        units.settle(state.stack, "", engine_dir.current())
        engine_dir.leave(wipe and store.stacks() == [])

    result = transaction.remove(previous, check, begin, commit, resources, drain, state.stack)
    if actions and not result.changed and not check:
        with journal.recording():
            commit(None)
    if not (result.changed or actions):
        return _answer(state, state.current, result, (), warnings)
    left = State(state.stack) if wipe else state if check else store.load(state.stack)
    answer = _answer(left, None, result, actions, warnings)
    return {**answer, "previous": state.current}


def unchanged(state: State) -> dict[str, Any]:
    """The answer when there is nothing to do."""
    return _answer(state, state.current, Result(False), (), [])


def involved(state: State) -> tuple[list[Manifest], list[str]]:
    """The manifests of all that may be in the kernel, the active one first; and warnings."""
    found, warnings = [], []
    names = in_use(state) - {None, state.running}
    for release in (state.running, *sorted(str(name) for name in names)):
        if release is None or (release not in state.releases and release != state.running):
            continue  # a release whose manifest was never stored has put nothing into the kernel
        try:
            found.append(store.manifest(state, release))
        except Failure as failure:
            warnings.append(
                f"what release {release} declared is not known ({failure}); what only it declared "
                "may be left"
            )
    pending = state.pending
    if pending is not None and pending.phase == APPLYING:
        goal = f"release {pending.release}" if pending.release else "its removal"
        warnings.append(f"stack {state.stack}: the change to {goal} was begun and never finished")
    return found, warnings


def _waits_for_another(move: Move) -> bool:
    """Whether another release than the goal was deployed and never confirmed."""
    pending = move.state.pending
    return pending is not None and pending.phase == CONFIRM and pending.release != move.goal.release


def _begin(move: Move, token: str, seconds: int) -> None:
    """Say that the change has begun, and store what the release consists of."""
    goal, state = move.goal, move.state
    keep.prepare(goal.name)
    keep.set_pending(goal.name, _pending(goal.release, move.back, APPLYING, token, seconds))
    for sha, source in move.files.items():
        keep.put_object(goal.name, sha, source)
    if not store.holds(state, goal):
        keep.put_release(goal, move.record)
    if seconds:
        confirm.start_guard(goal.name, token, move.engine)


def _commit(move: Move, token: str, seconds: int) -> None:
    """Make the release current, and say that the change is over or waits to be confirmed."""
    goal = move.goal
    if move.arrives:
        keep.put_record(goal.name, goal.release, keep.activated(move.record, keep.now()))
        keep.set_current(goal.name, goal.release)
    keep.set_fallback(goal.name, None)
    if seconds:
        keep.set_pending(goal.name, _pending(goal.release, move.back, CONFIRM, token, seconds))
    else:
        keep.set_pending(goal.name, _still_waiting(move))
    keep.drop(goal.name, _surplus(move))
    keep.sweep(goal.name)
    units.settle(goal.name, goal.boot, move.engine or engine_dir.current())
    engine_dir.switch(move.engine)


def _surplus(move: Move) -> list[str]:
    """The releases that are not stored any longer once the goal is current."""
    if not move.keep:
        return []
    goal = move.goal.release
    names = [*(name for name in move.state.releases if name != goal), goal]
    return keep.surplus(names, move.keep, {goal, move.record.predecessor, move.back})


def _still_waiting(move: Move) -> Pending | None:
    """A release that waits to be confirmed does so until somebody confirms it."""
    pending = move.state.pending
    if pending is None or pending.phase != CONFIRM or pending.release != move.goal.release:
        return None
    return pending if move.goes_back else None


def _pending(
    release: str | None, back: str | None, phase: str, token: str, seconds: int
) -> Pending:
    due, confirm_by = confirm.deadline(seconds)
    return Pending(release, back, phase, token, keep.boot_id(), due, confirm_by)


def _store_actions(move: Move) -> list[str]:
    """What is to be done beside the kernel, for people."""
    state, goal = move.state, move.goal
    actions = []
    if not store.holds(state, goal):
        actions.append(f"store release {goal.release} of stack {goal.name}")
    if move.arrives:
        actions.append(f"make release {goal.release} of stack {goal.name} current")
    pending = state.pending
    if pending is not None and pending != _still_waiting(move):
        waits = pending.phase == CONFIRM and pending.release == goal.release
        actions.append(
            f"{'confirm' if waits else 'leave the change to'} release "
            f"{pending.release or '(none)'} of stack {goal.name}"
        )
    if state.fallback is not None:
        actions.append(f"leave the release that a boot fell back to, {state.fallback.running}")
    actions += [f"store object {sha[:12]}" for sha in move.files if store.holds(state, goal)]
    actions += [f"remove leftover {path}" for path in state.leftovers]
    return (
        actions
        + units.actions(goal.boot, move.engine or engine_dir.current())
        + engine_dir.actions(move.engine)
    )


def _removal_actions(state: State, wipe: bool) -> list[str]:
    actions = []
    if state.current or state.pending:
        actions.append(f"leave release {state.current or '(none)'} of stack {state.stack}")
    if wipe and state.exists:
        actions.append(f"remove {store.directory(state.stack)}")
    return actions + [f"remove leftover {path}" for path in state.leftovers]


def _answer(
    state: State,
    release: str | None,
    result: Result,
    actions: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    releases = list(state.releases)
    if release is not None and release not in releases:
        releases.append(release)
    answer: dict[str, Any] = {
        "changed": result.changed or bool(actions),
        "actions": [*result.actions, *actions],
        "diff": {key: dict(value) for key, value in result.diff.items()},
        "warnings": [*warnings, *result.warnings],
        "plan": list(result.plan),
        "resources": list(result.resources),
        "release": release,
        "previous": state.current,
        "releases": releases,
    }
    if state.pending is not None and state.pending.phase == CONFIRM:
        answer["confirm_by"] = state.pending.confirm_by
    return answer
