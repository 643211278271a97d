# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Replay: what a boot does with the stored stacks, and a guard with an unconfirmed change.

A stack gets its current release, or the one to go back to when a change to it was killed or never
confirmed. If that does not load, as after an upgrade of the kernel, it gets the newest stored
release that does; fallback.json and a line in the journal say so.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..bpf import journal, mounts, netns, pins, rtnetlink
from ..resource.errors import Failure, from_os_error
from ..resource.lock import host_lock
from ..resource.paths import BPFFS
from . import confirm, keep, move, store, transaction
from .manifest import Manifest, Resource
from .plan import Plan
from .record import APPLYING, Fallback
from .say import ERROR, INFO, WARNING, say
from .store import State

PHASES = ("early", "network")
_INTERFACE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_LOCK_SECONDS = 120
_WITH_INTERFACE = ("xdp_attach", "tc_attach")


@dataclass(frozen=True)
class Settled:
    """What a stack runs after ``settle``; ``reason`` says why it is not the goal, if it is not."""

    goal: str | None
    running: str | None
    changed: bool
    reason: str = ""


def replay(phases: tuple[str, ...], names: tuple[str, ...] = ()) -> int:
    """Bring every stack of these phases (or these stacks) to what is stored.

    Returns the exit status: 0 when every stack runs a release, its current one or another.
    """
    failed = 0
    for name in names or store.stacks():
        try:
            with host_lock(_LOCK_SECONDS):
                failed += not _replay(store.load(name), () if names else phases)
        except Failure as failure:
            say(ERROR, f"stack {name}: {failure}")
            failed += 1
            if is_stopped(failure):
                break
        except OSError as error:
            say(ERROR, f"stack {name}: {from_os_error(error, str(error.filename or 'replay'))}")
            failed += 1
    return 1 if failed else 0


def _replay(state: State, phases: tuple[str, ...]) -> bool:
    """Replay one stack, if it is one of these phases. Returns False when it runs nothing."""
    pending = state.pending
    goal = state.current
    if state.leftovers:
        keep.sweep(state.stack)
    if pending is not None:
        if pending.boot == keep.boot_id() and not _is_stuck(state):
            say(INFO, f"stack {state.stack}: release {pending.release} waits to be confirmed")
            return True
        goal = pending.previous
        say(
            WARNING,
            f"stack {state.stack}: the change to {pending.release or 'nothing'} was never "
            f"{'finished' if pending.phase == APPLYING else 'confirmed'}: "
            f"{'on' if goal == pending.release else 'back'} to {goal or 'nothing'}",
        )
    elif goal is None or (phases and store.manifest(state, goal).boot not in phases):
        return True
    _mount_bpffs()
    settled = settle(state, goal)
    tell(state.stack, settled)
    return settled.running is not None or settled.goal is None


def _is_stuck(state: State) -> bool:
    """Whether a change of this boot is not going on; the caller holds the lock, so none is."""
    pending = state.pending
    return pending is not None and (pending.phase == APPLYING or confirm.is_over(pending))


def tell(stack: str, settled: Settled) -> None:
    """Say what a stack runs, and loudly when it is not what it should be."""
    if settled.reason and settled.running:
        say(
            ERROR,
            f"stack {stack}: release {settled.goal} does not load on Linux {platform.release()}; "
            f"release {settled.running} runs instead: {settled.reason}",
        )
    elif settled.reason:
        say(ERROR, f"stack {stack}: no stored release loads; {settled.goal}: {settled.reason}")
    else:
        done = "now runs" if settled.changed else "runs"
        say(INFO, f"stack {stack}: {done} {settled.goal or 'nothing'}")


def settle(state: State, goal: str | None) -> Settled:
    """Bring a stack to a release, else to the newest other that loads; None takes it away.

    The caller holds the host's lock. Raises Failure only when nothing can be tried, or when a
    signal ends it, which says nothing of a release.
    """
    if goal is None:
        _mark_reverted(state, goal)
        taken = move.run_removal(state, wipe=False, check=False)
        return Settled(None, None, bool(taken["changed"]))
    reasons: dict[str, str] = {}
    for release in _candidates(state, goal):
        try:
            changed = _converge(state, goal, release, reasons.get(goal, ""))
        except Failure as failure:
            if is_stopped(failure):
                raise
            reasons[release] = str(failure)
            continue
        return Settled(goal, release, changed, reasons.get(goal, ""))
    reason = reasons.get(goal, "it is not stored")
    _note(state, goal, Fallback(None, goal, reason, platform.release(), keep.now()))
    return Settled(goal, None, False, reason)


def is_stopped(failure: Failure) -> bool:
    """Whether a signal is why: systemd had no more patience, or the host is shut down."""
    return isinstance(failure.__cause__, journal.Stopped)


def _candidates(state: State, goal: str) -> list[str]:
    """The goal, then the others, newest first; none that nobody has ever confirmed.

    Such a one may have cut the host off, and at a boot there is no guard that takes it back.
    """
    taken_back = state.pending.release if state.pending else None
    others = [name for name in reversed(state.usable) if name not in (goal, taken_back)]
    records = {name: state.record(name) for name in others}
    return [
        goal,
        *(name for name in others if records[name].activated and not records[name].reverted),
    ]


def _converge(state: State, goal: str, release: str, reason: str) -> bool:
    """Make a release run, and note it in the place of ``goal``. Raises Failure."""
    manifest = _prepared(store.manifest(state, release))
    previous, _warnings = move.involved(state)
    fallback = None
    if release != goal:
        fallback = Fallback(release, goal, reason, platform.release(), keep.now())

    def resolve(sha: str) -> str:
        return store.object_path(state.stack, sha)

    def commit(_plan: Plan | None) -> None:
        _note(state, goal, fallback)

    result = transaction.converge(manifest, resolve, previous, commit=commit)
    if not result.changed:
        with journal.recording():
            commit(None)
    return result.changed


def _note(state: State, goal: str, fallback: Fallback | None) -> None:
    """Have the store say what runs."""
    known = state.fallback
    if fallback is None or known is None or _cause(fallback) != _cause(known):
        keep.set_fallback(state.stack, fallback)
    if fallback is not None and fallback.running is None:
        return  # nothing runs: the next boot tries again, from the same words
    if state.current != goal:
        keep.set_current(state.stack, goal)
    _mark_reverted(state, goal)
    if state.pending is not None:
        keep.set_pending(state.stack, None)


def _cause(fallback: Fallback) -> Fallback:
    return dataclasses.replace(fallback, time="", reason="")


def _mark_reverted(state: State, goal: str | None) -> None:
    """Record of the release that a change led to in vain that it was taken back."""
    release = state.pending.release if state.pending else None
    stored = state.releases.get(release) if release is not None and release != goal else None
    if release is not None and stored is not None and stored.record is not None:
        record = dataclasses.replace(stored.record, reverted=keep.now())
        keep.put_record(state.stack, release, record)


def _mount_bpffs() -> None:
    if os.path.isdir(BPFFS) and not pins.is_bpffs(BPFFS):
        try:
            mounts.mount_bpffs(BPFFS, 0o700)
        except OSError as error:
            raise from_os_error(error, f"mount a BPF file system on {BPFFS}") from error


def _prepared(manifest: Manifest) -> Manifest:
    """Wait for the interfaces that drivers will make, and ask for the cgroups of later services.

    A service that starts afterwards finds its cgroup there, and the program in it.
    """
    end = time.monotonic() + _INTERFACE_SECONDS
    for resource in manifest.resources:
        if resource.kind in _WITH_INTERFACE:
            _wait_until(end, functools.partial(_has_interface, resource))
    return dataclasses.replace(
        manifest, resources=tuple(_with_cgroup(each) for each in manifest.resources)
    )


def _with_cgroup(resource: Resource) -> Resource:
    if resource.kind != "cgroup_attach":
        return resource
    return dataclasses.replace(resource, params={**resource.params, "create_cgroup": True})


def _has_interface(resource: Resource) -> bool:
    name, namespace = str(resource.params["interface"]), str(resource.params.get("netns") or "")
    try:
        with netns.entered(netns.path_of(namespace)):
            return rtnetlink.interface(name) is not None
    except OSError:
        return False


def _wait_until(end: float, holds: Callable[[], bool]) -> None:
    while not holds() and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
