# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the health service does beside checking: settle slots, keep next hops resolved.

A slot that moved names its former backend as well until the connections that stayed there are gone;
once it is settled, its packets need no table any more.
"""

from __future__ import annotations

import socket
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from ..resource.lock import host_lock
from . import connections, health_maps, layout, members, moves, neighbours, tables
from .tables import Map, Tables

FLOW_TABLES = ("flows", "flows_leaving", "nat_flows")


@dataclass(frozen=True)
class Tended:
    """What was done. ``settled_since``: no slot that moved before this stamp is left unsettled."""

    slots: Mapping[str, int]  # settled, by service
    settled_since: int = -1


def tend(pin_dir: str, settled_since: int) -> Tended:
    """Ask for the link-layer addresses of the next hops, and settle what can be. Raises Failure.

    ``settled_since`` is what the last call returned: rings are not read while nothing has moved.
    """
    with health_maps.opened(pin_dir) as found:
        now = tables.read(found, rings=False)
        neighbours.nudge(
            sorted(
                {
                    backend.address
                    for backend in now.backends.values()
                    if backend.address is not None and backend.state != members.DISABLED
                },
                key=str,
            )
        )
        if now.settings.moved == settled_since:
            return Tended({}, settled_since)
        rings = _unsettled(found, now)
        if not rings:
            return Tended({}, now.settings.moved)
        slots = _settleable(pin_dir, now, rings)
        if not slots or not _settle(pin_dir, now, rings, slots):
            return Tended({})
    return Tended({now.names[number]: len(each) for number, each in slots.items()})


def _unsettled(found: Mapping[str, Map], now: Tables) -> dict[int, moves.Ring]:
    rings = {}
    for number in now.names:
        raw = tables.read_ring(found, number)
        if raw:
            ring = moves.Ring.unpack(raw)
            if len(moves.unsettled(ring)):
                rings[number] = ring
    return rings


def _settleable(
    pin_dir: str, now: Tables, rings: Mapping[int, moves.Ring]
) -> dict[int, array[int]]:
    """The slots, by service, from whose former backend every connection is gone."""
    udp = _udp_services(now)
    idle = connections.Idle(now.settings.idle_tcp, now.settings.idle_udp)
    stamp = layout.coarse(time.monotonic_ns())
    since = (stamp - now.settings.moved) & 0xFFFFFFFF
    with tables.opened(pin_dir, FLOW_TABLES) as found:
        flows = {name: table.fd for name, table in found.items()}
        live = connections.count(flows, idle, stamp, udp)
    slots = {
        number: connections.settleable(
            ring, number, live, since, idle.udp if number in udp else idle.tcp
        )
        for number, ring in rings.items()
    }
    return {number: each for number, each in slots.items() if len(each)}


def _udp_services(now: Tables) -> frozenset[int]:
    return frozenset(
        layout.Service.unpack(value).id
        for key, value in now.services.items()
        if layout.ServiceKey.unpack(key).protocol == socket.IPPROTO_UDP
    )


def _settle(
    pin_dir: str, seen: Tables, rings: Mapping[int, moves.Ring], slots: Mapping[int, array[int]]
) -> bool:
    """Write the settled rings, unless one was replaced while connections were counted."""
    with host_lock(health_maps.LOCK_SECONDS), health_maps.opened(pin_dir) as found:
        now = tables.read(found, rings=False)
        if now.settings.moved != seen.settings.moved:
            return False
        settled = {
            number: moves.settle(rings[number], each).pack()
            for number, each in slots.items()
            if tables.read_ring(found, number) == rings[number].pack()
        }
        tables.put_rings(found, settled)
    return bool(settled)
