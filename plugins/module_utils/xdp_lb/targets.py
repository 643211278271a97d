# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Each declared service with the ring that it is to have, and what that takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from . import layout, moves
from .layout import Backend
from .members import Moment, next_ring
from .moves import Ring
from .ring import Computer
from .tables import Tables
from .wanted import Placed
from .writes import Writes


@dataclass(frozen=True)
class Target:
    """A service as it is to be. ``moved`` slots lead to another backend than before."""

    placed: Placed
    ring: Ring
    moved: int


def rings(tables: Tables) -> dict[int, Ring]:
    """The rings by service id; one that cannot be read as one is left out."""
    found = tables.rings.items()
    return {number: Ring.unpack(raw) for number, raw in found if len(raw) == layout.RING_BYTES}


def named_by(found: Iterable[Ring]) -> set[int]:
    """The ids of all backends that occur in the rings."""
    names: set[int] = set()
    for each in found:
        names.update(each.backends)
        names.update(each.previous)
    return names


def compute(
    placed: Iterable[Placed], computer: Computer, old: Mapping[int, Ring], moment: Moment
) -> tuple[Target, ...]:
    """The ring of each service: its members' slots, and what stays of the connections."""
    return tuple(_target(each, computer, old.get(each.id), moment) for each in placed)


def _target(placed: Placed, computer: Computer, old: Ring | None, moment: Moment) -> Target:
    udp = placed.declared.protocol == "udp"
    new = next_ring(computer, placed.backends, placed.forwarding, udp, old, moment)
    if old is None or old.backends == new.backends:
        return Target(placed, new, 0)
    return Target(placed, new, moves.moved(old.backends, new.backends))


def service_writes(
    target: Target,
    tables: Tables,
    held: Mapping[int, Backend],
    old: Ring | None,
    entries: Mapping[bytes, bytes | None],
) -> Writes:
    """What brings one service to its target.

    ``held`` are its records, ``old`` its ring, ``entries`` what it changes in the service maps.
    """
    number, placed = target.placed.id, target.placed
    records: dict[int, Backend | None] = {
        key: backend for key, backend in placed.backends.items() if held.get(key) != backend
    }
    records.update({key: None for key in held if key not in placed.backends})
    name = placed.declared.name
    return Writes(
        names={} if tables.names.get(number) == name else {number: name},
        backends=records,
        rings={} if old == target.ring else {number: target.ring},
        entries=entries,
        new_services=() if number in tables.names else (number,),
        new_backends=tuple(key for key in placed.backends if key not in tables.backends),
    )


def removal_writes(
    numbers: Iterable[int],
    tables: Tables,
    held: Mapping[int, Mapping[int, Backend]],
    entries: Mapping[bytes, bytes | None],
) -> Writes:
    """What takes away all that belongs to these service ids."""
    gone = tuple(numbers)
    return Writes(
        names={number: "" for number in gone if number in tables.names},
        backends={key: None for number in gone for key in held.get(number, {})},
        rings={number: None for number in gone if number in tables.rings},
        entries=entries,
    )
