# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The order in which resources are made, found from what they say; it is undone in the reverse.

What makes a pin comes before what needs it. Otherwise the rank of the kind decides: programs before
what is attached, entries before the first packet, a sockmap's program before what fills the map.
Among equals the order in which they were declared stays.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from ..resource.errors import Failure
from ..resource.paths import pin_path
from .kinds import ADAPTERS, ANY
from .manifest import Resource


def ordered(resources: Sequence[Resource]) -> tuple[Resource, ...]:
    """The resources in the order in which to make them.

    Raises Failure when two are the same thing, or when they need each other in a circle.
    """
    require_distinct(resources)
    before = [_before(at, resources) for at in range(len(resources))]
    ready = [(_rank(each), at) for at, each in enumerate(resources) if not before[at]]
    heapq.heapify(ready)
    found: list[int] = []
    while ready:
        _first, at = heapq.heappop(ready)
        found.append(at)
        for other, waits in enumerate(before):
            if at in waits:
                waits.remove(at)
                if not waits:
                    heapq.heappush(ready, (_rank(resources[other]), other))
    if len(found) < len(resources):
        stuck = ", ".join(str(resources[at]) for at, waits in enumerate(before) if waits)
        raise Failure(
            f"these resources need each other in a circle: {stuck}; a pin that one of them makes "
            "is needed by another, and the other way round: give one of them its own pin"
        )
    return tuple(resources[at] for at in found)


def _rank(resource: Resource) -> int:
    return ADAPTERS[resource.kind].rank


def _before(at: int, resources: Sequence[Resource]) -> set[int]:
    """The places of the resources that have to be made before this one."""
    adapter = ADAPTERS[resources[at].kind]
    needs, after = adapter.needs(resources[at].params), adapter.after(resources[at].params)
    found = set()
    for other, resource in enumerate(resources):
        if other == at:
            continue
        # What needs nothing itself makes the map; programs that share one need no order.
        is_maker = resource.kind != "bpf_prog" and not ADAPTERS[resource.kind].needs(
            resource.params
        )
        if _gives_any(resource, needs) or (is_maker and _gives_any(resource, after)):
            found.add(other)
    return found


def _gives_any(resource: Resource, pins: Iterable[str]) -> bool:
    given = ADAPTERS[resource.kind].gives(resource.params)
    return any(gives(given, pin) for pin in pins)


def gives(given: Iterable[str], pin: str) -> bool:
    """Whether the pin is among the given ones, some of which may stand for a whole directory."""
    directory = pin.rpartition("/")[0]
    return any(each in (pin, f"{directory}/{ANY}") for each in given)


def require_distinct(resources: Iterable[Resource]) -> None:
    """Raise Failure when two resources are the same thing."""
    known: dict[str, Resource] = {}
    for resource in resources:
        for identity in sorted(ADAPTERS[resource.kind].identity(resource.params)):
            other = known.setdefault(identity, resource)
            if other is not resource:
                raise Failure(
                    f"{other} and {resource} both declare {identity}; what is declared once has "
                    "one state: leave one of them out, or give it a pin or place of its own"
                )


def require_complete(name: str, resources: Sequence[Resource]) -> None:
    """Raise Failure when one needs a pin in the stack's own directory that none of them makes.

    What happens to be there, of a release before, is no part of this one and would not be there
    when it is replayed.
    """
    own = pin_path(name) + "/"
    given = [pin for each in resources for pin in ADAPTERS[each.kind].gives(each.params)]
    for resource in resources:
        for pin in ADAPTERS[resource.kind].needs(resource.params):
            if pin.startswith(own) and not gives(given, pin):
                raise Failure(
                    f"{resource} needs {pin}, which no resource of the stack makes; correct the "
                    "path, or declare what makes it (bpf_prog with pin, pin_dir, maps or pin_maps; "
                    "bpf_map_pin)",
                    step=str(resource),
                )
