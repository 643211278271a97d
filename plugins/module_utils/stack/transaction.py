# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A whole stack brought into its state, or nothing of it.

An unchanged host is read once and left. Otherwise everything is planned in a private view of the
host, with programs verified and maps made; then it is carried out under a journal, read again, and
handed to whoever keeps the release. Whatever fails on the way takes all of it back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

from ..bpf import journal
from ..resource.engine import Change
from ..resource.errors import Failure, from_os_error, require_root
from . import order, plan, prune, strays, sweep
from .kinds import ADAPTERS
from .manifest import Manifest, Resource, to_remove
from .plan import Bound, Plan, Resolve, Seen, Step

Answer = TypeVar("Answer")
Moment = Callable[[Plan], None]  # a part of the transaction that is somebody else's

_TOLD = 3  # changes of a step that an error names
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _no_moment(_plan: Plan) -> None:
    """Nobody keeps the release."""


@dataclass(frozen=True)
class Result:
    """What was done, or in check mode would be.

    ``plan``: for each resource with something to do ``{resource, target, actions}``;
    ``resources``: what each resource's module would return, in the declared order.
    """

    changed: bool
    actions: tuple[str, ...] = ()
    diff: Mapping[str, Any] = field(default_factory=lambda: {"before": {}, "after": {}})
    warnings: tuple[str, ...] = ()
    plan: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()


def converge(
    manifest: Manifest,
    resolve: Resolve,
    previous: Sequence[Manifest] = (),
    check: bool = False,
    begin: Moment = _no_moment,
    commit: Moment = _no_moment,
) -> Result:
    """Bring the stack into its state, all of it or nothing; the caller holds the host's lock.

    ``previous`` are the manifests that may have left something here: what they declared and this
    one does not is taken away. ``begin`` runs inside the journal before the first step, ``commit``
    after the kernel was read again, both only when there is something to do and never in check
    mode; what they raise undoes everything. Raises Failure; ``details["undone"]`` are the steps
    that were taken back, ``details["left"]`` what could not be.
    """
    require_root()
    order.require_complete(manifest.name, manifest.resources)
    bounds = plan.bind_all(manifest, resolve)
    doomed = prune.dropped(previous, manifest.resources)
    seen = plan.as_found(bounds)
    if seen is not None and not any(each.changes for each in seen):
        found = _pruned(manifest, seen, doomed, ())
        if not found.steps:
            return Result(False, warnings=found.warnings, resources=_reports(seen))
    with (
        journal.paused(),
        plan.whole(
            bounds, seen, lambda seen, steps: _extra(manifest, seen, doomed, steps)
        ) as whole,
    ):
        todo = Plan((*whole.steps, *whole.extra))
        if check or not todo.steps:
            told = result_of(todo.steps, whole.warnings, _reports(whole.seen))
            return dataclasses.replace(told, diff=_without(told.diff, whole.unseen))

        def work(at: list[str]) -> tuple[Mapping[str, Any], ...]:
            begin(todo)
            _carry_out(todo.steps, at)
            at.append(_CHECKING)
            reports = _reports(_settled(bounds))
            at.append(_KEEPING)
            commit(todo)
            return reports

        return result_of(todo.steps, whole.warnings, _all_or_nothing(work))


def _without(diff: Mapping[str, Any], prog_ids: Collection[int]) -> dict[str, Any]:
    """The diff without the ids of programs that were loaded for the plan alone."""
    after = {
        target: {**shown, "prog_id": None} if shown and shown.get("prog_id") in prog_ids else shown
        for target, shown in diff["after"].items()
    }
    return {**diff, "after": after}


_STARTING = "before the first step"
_CHECKING = "reading the result again"
_KEEPING = "keeping the release"


def _extra(
    manifest: Manifest, seen: Sequence[Seen], doomed: Sequence[prune.Doomed], steps: Sequence[Step]
) -> tuple[Sequence[Step], Sequence[str]]:
    prune.require_one_maker(seen)
    found = _pruned(manifest, seen, doomed, steps)
    return found.steps, found.warnings


def _pruned(
    manifest: Manifest, seen: Sequence[Seen], doomed: Sequence[prune.Doomed], steps: Sequence[Step]
) -> prune.Found:
    """What to take away; with ``prune: false`` only told."""
    found = prune.find(manifest.name, seen, doomed, steps)
    if manifest.prune or not found.steps:
        return found
    would = [str(change) for step in found.steps for change in step.changes]
    told = f"not declared any more, and left because of prune: false; to do: {', '.join(would)}"
    return prune.Found((), (*found.warnings, told))


def _reports(seen: Sequence[Seen]) -> tuple[Mapping[str, Any], ...]:
    """In the order in which the resources were declared."""
    return tuple(each.report for each in sorted(seen, key=lambda each: each.bound.resource.index))


def _settled(bounds: Sequence[Bound]) -> tuple[Seen, ...]:
    """Every resource read again. Raises Failure when one is not as declared."""
    found = []
    for bound in bounds:
        seen = plan.look(bound)
        if seen.changes:
            raise plan.still_to_do(seen)
        found.append(seen)
    return tuple(found)


def _carry_out(steps: Sequence[Step], at: list[str]) -> None:
    for step in steps:
        at.append(_described(step))
        with plan.named(_described(step)):
            step.do()
        journal.check()


def _described(step: Step) -> str:
    told = [str(change) for change in step.changes[:_TOLD]]
    if len(step.changes) > _TOLD:
        told.append(f"and {len(step.changes) - _TOLD} more")
    return f"{step.label}: {', '.join(told)}"


def _all_or_nothing(work: Callable[[list[str]], Answer], done: Sequence[str] = ()) -> Answer:
    """Record what ``work`` does and take it back when it fails; it notes its steps in the list.

    ``done``: what stays done in any case.
    """
    at: list[str] = [_STARTING]
    with journal.recording() as log, _told_by_signals(log):
        try:
            answer = work(at)
        except (Failure, OSError, journal.Stopped) as error:
            raise _undone(error, at, log.roll_back(), done) from error
        log.commit()
    return answer


@contextlib.contextmanager
def _told_by_signals(log: journal.Log) -> Iterator[None]:
    """Let signals that ask to end stop the log at its next step. What was ignored stays ignored."""

    def stop(number: int, _frame: FrameType | None) -> None:
        log.stop(signal.Signals(number).name)

    before = {}
    try:
        with contextlib.suppress(ValueError):  # not in the main thread, which alone gets signals
            for number in _SIGNALS:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    before[number] = signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _undone(
    error: Exception, at: Sequence[str], left: Sequence[str], done: Sequence[str]
) -> Failure:
    """The error with where it happened, and in which state the host is now."""
    details: dict[str, Any] = {}
    if isinstance(error, journal.Stopped):
        text = f"{at[-1]}: ended by {error}"
    elif isinstance(error, OSError):
        failure = from_os_error(error, f"{at[-1]}: {error.filename or 'system call'}")
        text, details = str(failure), failure.details
    else:
        text = str(error)
        details = error.details if isinstance(error, Failure) else {}
        if "step" not in details:
            text = f"{at[-1]}: {text}"
    if left:
        state = f"{len(left)} steps could not be taken back, run it again: {'; '.join(left)}"
    elif done:
        state = f"{len(done)} steps before it are done and stay so; run it again to go on"
    else:
        state = "everything is as it was"
    return Failure(
        f"{text}\n{state}", **{**details, "step": at[-1], "undone": [*at[1:-1]], "left": [*left]}
    )


def result_of(
    steps: Sequence[Step],
    warnings: Sequence[str],
    resources: Sequence[Mapping[str, Any]] = (),
) -> Result:
    """What the steps do, for people."""
    changes = [change for step in steps for change in step.changes]
    return Result(
        changed=bool(changes),
        actions=tuple(str(change) for change in changes),
        diff=_diff(changes),
        warnings=(*(change.warning for change in changes if change.warning), *warnings),
        plan=tuple(
            {
                "resource": step.kind,
                "target": step.changes[0].target,
                "actions": [str(change) for change in step.changes],
            }
            for step in steps
        ),
        resources=tuple(resources),
    )


def _diff(changes: Sequence[Change]) -> dict[str, dict[str, Any]]:
    """Each target before and after; what several changes say of one is put together."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for change in changes:
        if change.before is not None or change.after is not None:  # a gate shows nothing
            target, known = change.target, after.get(change.target)
            before.setdefault(target, change.before)
            after[target] = {**(known or {}), **change.after} if change.after is not None else None
    return {"before": before, "after": after}


def remove(
    manifests: Sequence[Manifest],
    check: bool = False,
    begin: Moment = _no_moment,
    commit: Moment = _no_moment,
    resources: Sequence[Mapping[str, Any]] = (),
    drain: Sequence[Mapping[str, Any]] = (),
    name: str = "",
) -> Result:
    """Take the stack away: drain it first, then all of it in the reverse order.

    ``manifests``: what may be here, the active one first, perhaps none (then ``name`` says which
    stack). ``resources`` and ``drain``, as in a manifest's document, take the place of those of the
    same identity. It only goes forward: each step is all or nothing, what is done stays done, and
    the next run goes on. Needs no object. ``begin`` runs before the first step and ``commit`` after
    the last one, each in a journal of its own, when there is something to do and not in check mode.
    """
    require_root()
    name = name or manifests[0].name
    drains = bool(drain) or any(manifest.drain for manifest in manifests)
    doomed = _all_doomed(name, manifests, to_remove(list(resources), "resources"), drains)
    first, undrained = _drained(manifests, to_remove(list(drain), "drain"))
    planned = [step for step in (prune.removal(name, each) for each in doomed) if step]
    rest, warnings = _leftovers(name, doomed, planned)
    warnings = (*undrained, *warnings)
    todo = Plan((*first, *planned, *rest))
    if check or not todo.steps:
        return result_of(todo.steps, warnings)
    _all_or_nothing(lambda _at: begin(todo))
    done = _take_away(name, first, doomed)
    _all_or_nothing(lambda _at: commit(todo), [_described(step) for step in done])
    return result_of(done, warnings)


def _all_doomed(
    name: str, manifests: Sequence[Manifest], given: Sequence[Resource], drains: bool
) -> tuple[prune.Doomed, ...]:
    """All that may be here, in the order in which to take it away.

    A stack that ``drains`` has told what feeds a sockmap to stop. It is waited for until the map is
    empty while the feeder is still attached, as perhaps nothing else takes live sockets out.
    """
    named = [
        prune.Doomed(each, params)
        for each in reversed(given)
        for params in (_removal_of(each),)
        if params is not None
    ]
    found = [*named, *prune.dropped(manifests, given)]
    found.sort(
        key=lambda each: (
            not (drains and each.resource.kind == "sockmap_attach"),
            -ADAPTERS[each.resource.kind].rank,
        )
    )
    return tuple(each for each in found if not prune.goes_with_its_map(name, each, found))


def _removal_of(resource: Resource) -> dict[str, Any] | None:
    adapter = ADAPTERS[resource.kind]
    return adapter.removal(resource.params, adapter.identity(resource.params))


def _drained(
    manifests: Sequence[Manifest], given: Sequence[Resource]
) -> tuple[list[Step], tuple[str, ...]]:
    """What to converge before anything is taken away, where its map is there at all.

    A stored one that does not fit its map any more does not stand in the way of a removal.
    """
    steps: list[Step] = []
    warnings: list[str] = []
    known: set[str] = set()
    for resource in (*given, *(each for manifest in manifests for each in manifest.drain)):
        identity = ADAPTERS[resource.kind].identity(resource.params)
        if not identity & known and plan.has_needs(resource):
            try:
                seen = plan.look(plan.bind(resource))
            except Failure as failure:
                if resource in given:
                    raise
                warnings.append(f"cannot be drained first: {failure}")
                continue
            steps += [plan.direct(seen)] if seen.changes else []
        known |= identity
    return steps, tuple(warnings)


def _leftovers(
    name: str, doomed: Sequence[prune.Doomed], steps: Sequence[Step]
) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """What nothing declared, beside what the steps take away."""
    taken = {change.target for step in steps for change in step.changes}
    taken |= {pin for each in doomed for pin in each.links if steps}
    swept = sweep.find(name, taken, (), ())
    return (*swept.steps, *strays.find(name, (), steps)), swept.warnings


def _take_away(name: str, first: Sequence[Step], doomed: Sequence[prune.Doomed]) -> list[Step]:
    """Each step is planned again: what it finds depends on those before."""
    done: list[Step] = []

    def carry_out(step: Step | None) -> None:
        if step is not None:
            before = [_described(each) for each in done]
            _all_or_nothing(functools.partial(_carry_out, (step,)), before)
            done.append(step)

    for step in first:
        carry_out(step)
    for each in doomed:
        carry_out(prune.removal(name, each))
        left = prune.removal(name, each)
        if left is not None:
            raise Failure(
                f"{_described(left)}: the kernel accepted every step but does not show the result; "
                "something else changes the same target: find it with bpf_info, and run this again"
            )
    for step in _leftovers(name, (), ())[0]:
        carry_out(step)
    return done
