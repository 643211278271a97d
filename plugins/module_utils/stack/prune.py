# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is ours in this stack and no longer declared.

First what earlier manifests had, each with its own removal; then pins in the stack's directory that
nothing claims; then attachments that only the program's own mark tells of (``strays``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..bpf import pins
from ..resource import paths
from ..resource.engine import Change, Kind
from ..resource.errors import Failure
from . import strays, sweep
from .kinds import ADAPTERS, ANY
from .manifest import Manifest, Resource
from .order import gives, ordered
from .plan import Seen, Step, named

# What an attachment does by itself about another program of ours at its interface.
_TAKEN_OVER = ("detach program", "detach link")


class Doomed(NamedTuple):
    """A resource of before, with the options that take it away."""

    resource: Resource
    params: Mapping[str, Any]

    def __str__(self) -> str:
        return f"former {self.resource}"

    @property
    def links(self) -> tuple[str, ...]:
        """The pins of its links."""
        if self.resource.kind.endswith("_attach"):
            return ADAPTERS[self.resource.kind].gives(self.resource.params)
        return ()


class Found(NamedTuple):
    """The steps that prune, and what an operator has to know."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


class _Kept(NamedTuple):
    """What stays: pins, attachments by netns and interface, entries by map and key."""

    pins: frozenset[str] = frozenset()
    interfaces: frozenset[tuple[str, str]] = frozenset()
    entries: frozenset[tuple[str, bytes]] = frozenset()
    purged: frozenset[str] = frozenset()  # maps of which a resource has the whole say
    planned: frozenset[tuple[str, str]] = frozenset()  # changes that others make already


def dropped(before: Iterable[Manifest], now: Sequence[Resource]) -> tuple[Doomed, ...]:
    """What manifests of before declared and these resources do not, in the order to remove it."""
    kept = {each for resource in now for each in ADAPTERS[resource.kind].identity(resource.params)}
    found: list[Doomed] = []
    for manifest in before:
        for resource in reversed(ordered(manifest.resources)):
            doomed = _doomed(resource, kept)
            if doomed is not None:
                found.append(doomed)
                kept |= ADAPTERS[resource.kind].identity(resource.params)
    return tuple(found)


def _doomed(resource: Resource, kept: Collection[str]) -> Doomed | None:
    adapter = ADAPTERS[resource.kind]
    identity = adapter.identity(resource.params)
    gone = frozenset(each for each in identity if each not in kept)
    if not gone or (len(gone) < len(identity) and not adapter.divisible):
        return None
    params = adapter.removal(resource.params, gone)
    return None if params is None else Doomed(resource, params)


def find(
    name: str, seen: Sequence[Seen], doomed: Sequence[Doomed], planned: Sequence[Step]
) -> Found:
    """What to take away from the stack beside what is ``seen``. Raises Failure."""
    kept = _Kept(
        claimed(seen),
        _interfaces(seen),
        _entries(seen),
        _purged(seen),
        frozenset((change.action, change.target) for step in planned for change in step.changes),
    )
    steps = []
    taken = set(kept.pins)
    for each in doomed:
        if _goes_with_its_map(name, each, doomed, kept.pins):
            continue
        step = removal(name, _without_waiting(each), kept)
        if step is not None:
            steps.append(step)
            taken.update(each.links)
            taken.update(change.target for change in step.changes)
    links = (pin for each in doomed for pin in each.links)
    swept = sweep.find(name, taken, links, [each.bound.resource for each in seen])
    return Found((*steps, *swept.steps, *strays.find(name, seen, steps)), swept.warnings)


def _without_waiting(doomed: Doomed) -> Doomed:
    """Inside a transaction nobody waits for sockets: what puts more of them in is attached to the
    end of it, and they lose nothing, as each keeps the program it has until it closes."""
    if doomed.resource.kind == "sockmap_attach" and doomed.params.get("drain") != "force":
        return Doomed(doomed.resource, {**doomed.params, "drain": "none"})
    return doomed


def removal(name: str, doomed: Doomed, kept: _Kept | None = None) -> Step | None:
    """The step that takes one resource away, None when nothing of it is there. Raises Failure."""
    kept = kept or _Kept()
    adapter = ADAPTERS[doomed.resource.kind]
    if adapter.load is None:
        return None
    kind, declare = adapter.load()
    with named(str(doomed)):
        desired = declare(dict(doomed.params))
        observed = _observed(doomed, kind, desired)
        if doomed.resource.kind == "bpf_map_entries":
            if observed is None or observed.map is None:
                return None
            observed = dataclasses.replace(observed, declared=_undeclared(observed, desired, kept))
        changes = tuple(
            change for change in kind.plan(desired, observed) if _may_go(name, doomed, change, kept)
        )
    if not changes:
        return None
    return Step(
        str(doomed),
        doomed.resource.kind,
        changes,
        lambda: kind.apply(desired, changes),
        adapter.hook,
    )


def _observed(doomed: Doomed, kind: Kind[Any, Any], desired: Any) -> Any:
    """None for entries that the map cannot hold: it is another one now, and has none of them."""
    try:
        return kind.observe(desired)
    except Failure:
        if doomed.resource.kind == "bpf_map_entries":
            return None
        raise


def _undeclared(observed: Any, desired: Any, kept: _Kept) -> tuple[Any, ...]:
    """A key that is declared still, if in another spelling, stays."""
    if desired.map in kept.purged:
        return ()
    return tuple(each for each in observed.declared if (desired.map, each.key) not in kept.entries)


def _may_go(name: str, doomed: Doomed, change: Change, kept: _Kept) -> bool:
    params = doomed.resource.params
    if doomed.resource.kind == "bpf_map_entries":
        return True  # its target is the pin of a map that stays
    if change.target in kept.pins or (change.action, change.target) in kept.planned:
        return False
    if doomed.resource.kind == "xdp_attach" and change.action in _TAKEN_OVER:
        return (params.get("netns") or "", params["interface"]) not in kept.interfaces
    if doomed.resource.kind == "bpf_prog" and change.action == "unpin map":
        return _is_its_own(name, params, change.target)
    return True


def _is_its_own(name: str, params: Mapping[str, Any], pin: str) -> bool:
    """Whether a map's pin goes with the program: in a directory of the stack or of the program's.

    One elsewhere was perhaps there before, and others may use it.
    """
    directories = [directory(name)]
    for option in ("pin_dir", "pin_maps"):
        if params.get(option):
            directories.append(paths.pin_path(params[option]) + "/")
    return bool(params.get("discard_maps")) or pin.startswith(tuple(directories))


def _goes_with_its_map(
    name: str, each: Doomed, doomed: Sequence[Doomed], stays: Collection[str]
) -> bool:
    """Whether what was written into a map need not be taken out, as the map itself goes."""
    if each.resource.kind not in ("bpf_map_entries", "xdp_lb_services"):
        return False
    pin = ADAPTERS[each.resource.kind].needs(each.resource.params)[-1]
    if pin in stays:
        return False
    given = (ADAPTERS[other.resource.kind].gives(other.resource.params) for other in doomed)
    return pin.startswith(directory(name)) or any(gives(pins_, pin) for pins_ in given)


def goes_with_its_map(name: str, each: Doomed, doomed: Sequence[Doomed]) -> bool:
    """The same when nothing stays."""
    return _goes_with_its_map(name, each, doomed, ())


def directory(name: str) -> str:
    """The stack's directory of pins, with the slash at its end."""
    return paths.pin_path(name) + "/"


def claimed(seen: Iterable[Seen]) -> frozenset[str]:
    """The pins that the resources make or need, as they are found."""
    return frozenset(pin for each in seen for pin in _claims(each))


def _claims(seen: Seen) -> Iterator[str]:
    resource, adapter = seen.bound.resource, seen.bound.adapter
    yield from adapter.needs(resource.params)
    for pin in adapter.gives(resource.params):
        if not pin.endswith(f"/{ANY}"):
            yield pin
            if resource.kind != "bpf_map_pin":
                yield pins.staging_path(pin)  # what a killed run left there is theirs to take
    if resource.kind == "bpf_prog":
        for item in (*seen.observed.programs.values(), *seen.observed.maps.values()):
            yield item.pin
            yield pins.staging_path(item.pin)


def _interfaces(seen: Iterable[Seen]) -> frozenset[tuple[str, str]]:
    declared = (each.bound.resource for each in seen if each.bound.resource.kind == "xdp_attach")
    return frozenset(
        (each.params.get("netns") or "", each.params["interface"]) for each in declared
    )


def _entries(seen: Iterable[Seen]) -> frozenset[tuple[str, bytes]]:
    return frozenset(
        (each.bound.desired.map, entry.key)
        for each in seen
        if each.bound.resource.kind == "bpf_map_entries"
        for entry in each.observed.declared
    )


def _purged(seen: Iterable[Seen]) -> frozenset[str]:
    declared = (each for each in seen if each.bound.resource.kind == "bpf_map_entries")
    return frozenset(each.bound.desired.map for each in declared if each.bound.desired.purge)


def require_one_maker(seen: Iterable[Seen]) -> None:
    """Raise Failure when two resources load a program to the same pin."""
    known: dict[str, Resource] = {}
    for each in seen:
        if each.bound.resource.kind != "bpf_prog":
            continue
        for item in each.observed.programs.values():
            other = known.setdefault(item.pin, each.bound.resource)
            if other is not each.bound.resource:
                raise Failure(
                    f"{other} and {each.bound.resource} both load a program to {item.pin}; give "
                    "each its own pin_dir, or name the programs"
                )
