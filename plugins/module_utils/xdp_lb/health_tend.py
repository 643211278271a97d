# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the health service does beside checking: settle slots, keep next hops resolved.

A slot that moved names its former backend as well, until the connections that stayed there are
gone; once it is settled, its packets need no table any more.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..resource.lock import host_lock
from . import connections, health_maps, layout, members, moves, neighbours, tables
from .moves import Ring
from .tables import Tables


@dataclass(frozen=True)
class Tended:
    """What was done: slots settled, by service. ``settled`` are ids of rings with none left."""

    slots: Mapping[str, int] = field(default_factory=dict)
    settled: frozenset[int] = frozenset()


def tend(pin_dir: str, known: frozenset[int]) -> Tended:
    """Have the next hops resolved, and settle what can be. Raises Failure.

    ``known`` are the rings, by the id of their map, that the last call found settled: they are not
    read again.
    """
    with health_maps.opened(pin_dir) as found:
        now = tables.read(found, rings=False)
        neighbours.nudge(
            each.address
            for each in now.backends.values()
            if each.address is not None and each.state != members.DISABLED
        )
        ids = {number: tables.ring_map_id(found, number) for number in now.names}
        settled = known & frozenset(ids.values())
        rings: dict[int, Ring] = {}
        for number, map_id in ids.items():
            raw = tables.read_ring(found, number) if map_id and map_id not in settled else b""
            if raw and any(Ring.unpack(raw).previous):
                rings[number] = Ring.unpack(raw)
            else:
                settled |= {map_id}
    slots = _settleable(pin_dir, now, rings) if rings else {}
    done = _settle(pin_dir, rings, slots) if slots else ()
    return Tended({now.names[number]: len(slots[number]) for number in done}, settled)


def _settleable(pin_dir: str, now: Tables, rings: Mapping[int, Ring]) -> dict[int, array[int]]:
    """The slots, by service, from whose former backend every connection is gone."""
    kinds = health_maps.kinds_of(now)
    udp = {number for number, kind in kinds.items() if kind.udp}
    stamp = layout.coarse(time.monotonic_ns())
    with tables.opened(pin_dir, connections.TABLES) as found:
        flows = {name: table.fd for name, table in found.items()}
        live = connections.count(flows, now.settings, stamp, udp)
    slots = {
        number: connections.settleable(ring, number, live, now.settings, stamp, number in udp)
        for number, ring in rings.items()
    }
    return {number: each for number, each in slots.items() if len(each)}


def _settle(
    pin_dir: str, rings: Mapping[int, Ring], slots: Mapping[int, array[int]]
) -> tuple[int, ...]:
    """Write settled rings; a service whose ring was replaced since it was read is left out."""
    with host_lock(health_maps.LOCK_SECONDS), health_maps.opened(pin_dir) as found:
        same = [
            number for number in slots if tables.read_ring(found, number) == rings[number].pack()
        ]
        settled = {number: moves.settle(rings[number], slots[number]).pack() for number in same}
        tables.put_rings(found, settled)
        _forget(pin_dir, {number: slots[number] for number in same})
    return tuple(same)


def _forget(pin_dir: str, slots: Mapping[int, array[int]]) -> None:
    with tables.opened(pin_dir, connections.FLOW_TABLES) as found:
        flows = {name: table.fd for name, table in found.items()}
        for number, each in slots.items():
            connections.forget(flows, number, each)
