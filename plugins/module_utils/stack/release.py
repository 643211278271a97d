# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What can be asked for a release: deploy, activate, withdraw, remove, forget.

Each names its goal and leads there from wherever the host is, a change that was killed half way
included; asked again it changes nothing. The caller holds the host's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bpf import journal
from ..resource.errors import Failure
from . import intake, keep, move, store
from . import manifest as manifests
from .intake import Brought
from .manifest import Manifest
from .move import Move
from .record import APPLYING, Record
from .store import State

KEEP = 5


def deploy(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Make a release what this host runs, and store it; or answer which objects it ``lacks``."""
    blobs = str(request.get("blobs") or "")
    with intake.reading(request.get("manifest"), blobs) as brought:
        if brought.lacks:
            return {"lacks": list(brought.lacks)}
        return _deploy(brought, request, check)


def _deploy(brought: Brought, request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    manifest = brought.manifest
    state = store.load(manifest.name)
    _refuse_other_content(state, manifest)
    wanted = Move(
        state,
        manifest,
        _record(state, manifest, _mapping(request, "run")),
        brought.resolve,
        move.way_back(state),
        brought.files,
        keep=number(request, "keep", KEEP),
        confirm_timeout=number(request, "confirm_timeout", 0),
        confirm_all=bool(request.get("confirm_all")),
        engine=str(request.get("engine") or ""),
    )
    return move.run(wanted, check)


def activate(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Make a stored release what this host runs."""
    state = store.load(_name(request))
    return _activate(state, manifests.check_release(request.get("release")), request, check)


def withdraw(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Go back to what ran before a release; where the release does not run, do nothing.

    A change to the release that was killed counts as the release, so does one away from it. The
    goal is the recorded predecessor, never "one before", so that asking twice changes nothing.
    """
    state = store.load(_name(request))
    release = manifests.check_release(request.get("release"))
    pending = state.pending
    on_the_way = pending is not None and pending.release == release
    if pending is not None and on_the_way and pending.previous != release:
        goal = pending.previous  # what is to be withdrawn was never finished, or never confirmed
    elif on_the_way or release in (state.current, state.running):
        goal = state.record(release).predecessor
    elif pending is not None and pending.phase == APPLYING and pending.release == state.current:
        goal = state.current  # a withdrawal that was killed at its very end
    else:
        return _sweep(state, check)
    if goal is None:
        return _remove(state, request, check, wipe=False)
    if goal not in state.releases:
        raise Failure(
            f"release {goal} of stack {state.stack}, which ran before {release}, is no longer "
            f"stored; name the goal instead (bpf_release, state=active): one of "
            f"{', '.join(name for name in state.usable if name != release) or '(none is stored)'}"
        )
    return _activate(state, goal, request, check)


def remove(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Take the stack away, with all that is stored of it."""
    return _remove(store.load(_name(request)), request, check, wipe=True)


def forget(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Remove a stored release that does not run."""
    state = store.load(_name(request))
    release = manifests.check_release(request.get("release"))
    if release not in state.releases:
        return move.unchanged(state)
    if release in move.in_use(state):
        raise Failure(
            f"release {release} of stack {state.stack} is what the host runs or is on its way to; "
            "withdraw it first (bpf_release, state=withdrawn)"
        )
    answer = move.unchanged(state)
    if state.current and state.record(state.current).predecessor == release:
        answer["warnings"].append(
            f"{release} ran before {state.current}, which cannot be withdrawn any more: a goal has "
            "to be named"
        )
    answer["actions"].append(f"forget release {release} of stack {state.stack}")
    answer["changed"] = True
    answer["releases"].remove(release)
    answer["diff"] = {
        "before": {f"{state.stack} releases": list(state.releases)},
        "after": {f"{state.stack} releases": list(answer["releases"])},
    }
    if not check:
        with journal.recording():
            keep.drop(state.stack, [release])
            keep.sweep(state.stack)
    return answer


def _sweep(state: State, check: bool) -> dict[str, Any]:
    """Do nothing, but for what a killed run left."""
    answer = move.unchanged(state)
    if state.leftovers:
        answer["changed"] = True
        answer["actions"] += [f"remove leftover {path}" for path in state.leftovers]
        if not check:
            keep.sweep(state.stack)
    return answer


def _activate(
    state: State, release: str, request: Mapping[str, Any], check: bool
) -> dict[str, Any]:
    goal = store.manifest(state, release)
    record = state.record(release)
    wanted = Move(
        state,
        goal,
        record,
        lambda sha: store.object_path(state.stack, sha),
        back=release,
        keep=number(request, "keep", 0),
    )
    return move.run(wanted, check)


def _remove(state: State, request: Mapping[str, Any], check: bool, wipe: bool) -> dict[str, Any]:
    return move.run_removal(
        state,
        wipe,
        check,
        _list(request, "resources") if wipe else (),
        _list(request, "drain") if wipe else (),
    )


def _refuse_other_content(state: State, manifest: Manifest) -> None:
    stored = state.releases.get(manifest.release)
    if stored is None or stored.record is None or stored.record.digest == manifest.digest:
        return
    raise Failure(
        f"release {manifest.release} of stack {manifest.name} is stored on this host with other "
        "content, and a release never changes; give the change a new name (release), or leave the "
        "name out to have one made of the content"
    )


def _record(state: State, manifest: Manifest, run: Mapping[str, Any]) -> Record:
    """What the record says once the release is current."""
    back = move.way_back(state)
    stored = state.releases.get(manifest.release)
    known = stored.record if stored else None
    if known is None:
        known = Record(
            manifest.digest, keep.now(), tuple(sorted(manifest.objects)), dict(run), back
        )
    if manifest.release in (state.current, back):
        return known
    return Record(
        known.digest, known.created, known.objects, dict(run), back, known.activated, known.reverted
    )


def _name(request: Mapping[str, Any]) -> str:
    return manifests.check_name(request.get("name"))


def number(request: Mapping[str, Any], key: str, default: int) -> int:
    """A number of a request. Raises Failure for anything else."""
    value = request.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Failure(f"{key}: {value!r} is no number of at least 0")
    return value


def _mapping(request: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = request.get(key) or {}
    if not isinstance(value, Mapping):
        raise Failure(f"{key}: {value!r} is no mapping")
    return value


def _list(request: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    value = request.get(key) or ()
    if not isinstance(value, (list, tuple)):
        raise Failure(f"{key}: write a list of resources")
    return value
