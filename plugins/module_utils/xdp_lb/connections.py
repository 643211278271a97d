# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Which connections are still there, as the data plane's tables have it.

The tables know every nat connection, but of ``dsr`` and ``ipip`` only those in slots that are not
settled: elsewhere there is no state. A backend that leaves the ring loses all its slots, so all its
connections that send anything are counted from then on.
"""

from __future__ import annotations

import struct
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from ..bpf import info, map_contents, maps
from ..bpf.syscall import Fd
from .layout import (
    FLOW,
    FLOW_BACKEND_FIN,
    FLOW_CLIENT_FIN,
    FLOW_RESET,
    RING_SLOTS,
    Settings,
)
from .moves import Ring, unsettled

FLOW_TABLES = ("flows", "flows_leaving")  # struct flow -> struct flow_entry
NAT_TABLE = "nat_flows"  # struct flow -> struct nat_entry
REPLY_TABLE = "nat_replies"  # struct nat_reply -> struct nat_origin
TABLES = (*FLOW_TABLES, NAT_TABLE, REPLY_TABLE)

_SERVICE_OF_FLOW = struct.Struct("=20xI")  # struct flow
_FLOW_ENTRY = struct.Struct("=IIIB3x")  # struct flow_entry: backend, slot, seen, state
_NAT_ENTRY = struct.Struct("=II6xBB")  # struct nat_entry: backend, seen, state, protocol
_NAT_ORIGIN = struct.Struct("=24s16xI")  # struct nat_origin: flow, seen
_UDP = 17
_BOTH_FINS = FLOW_CLIENT_FIN | FLOW_BACKEND_FIN

# Where we see only the client's packets, its FIN does not say that the server has finished. After
# how much silence nobody waits for such a connection, and after how much nothing is kept for it;
# in units of 2^30 ns, as ``layout.coarse`` has them.
CLOSING = 3
FORGOTTEN = 60


@dataclass(frozen=True)
class Live:
    """The connections that are there. ``places``: (service id, slot, backend id) of moved slots."""

    by_backend: Mapping[int, int]
    places: frozenset[tuple[int, int, int]]


def count(
    tables: Mapping[str, Fd], settings: Settings, now: int, udp_services: Collection[int] = ()
) -> Live:
    """Count what lives in the tables of these names (``TABLES``; one that is missing is empty).

    ``now`` is ``layout.coarse``; ``udp_services`` are ids. Reads 131,072 entries in about 0.1 s.
    """
    by_backend: Counter[int] = Counter()
    places: set[tuple[int, int, int]] = set()
    udp = frozenset(udp_services)
    for name in FLOW_TABLES:
        if name in tables:
            _count_flows(tables[name], settings, now, udp, by_backend, places)
    if NAT_TABLE in tables:
        silent = _count_nat(tables[NAT_TABLE], settings, now, by_backend)
        if silent and REPLY_TABLE in tables:
            _count_answered(tables[REPLY_TABLE], silent, settings, now, by_backend)
    return Live(dict(by_backend), frozenset(places))


def _count_flows(
    table: Fd,
    settings: Settings,
    now: int,
    udp: frozenset[int],
    by_backend: Counter[int],
    places: set[tuple[int, int, int]],
) -> None:
    idle_tcp, idle_udp = settings.idle_tcp, settings.idle_udp
    for keys, values in map_contents.blocks(table, info.map_(table)):
        entries = zip(_SERVICE_OF_FLOW.iter_unpack(keys), _FLOW_ENTRY.iter_unpack(values))
        for (service,), (backend, slot, seen, state) in entries:
            silent = _silence(now, seen)
            if silent > (idle_udp if service in udp else idle_tcp) or state & FLOW_RESET:
                continue
            closing = state & FLOW_CLIENT_FIN
            if not closing or silent < CLOSING:
                by_backend[backend] += 1
            if not closing or silent < FORGOTTEN:
                places.add((service, slot, backend))


def _count_nat(
    table: Fd, settings: Settings, now: int, by_backend: Counter[int]
) -> dict[bytes, tuple[int, bool]]:
    """Count those whose clients speak; of the others, by flow: the backend, and whether UDP."""
    idle_tcp, idle_udp = settings.idle_tcp, settings.idle_udp
    silent: dict[bytes, tuple[int, bool]] = {}
    for keys, values in map_contents.blocks(table, info.map_(table)):
        for at, (backend, seen, state, protocol) in enumerate(_NAT_ENTRY.iter_unpack(values)):
            if state & FLOW_RESET or state & _BOTH_FINS == _BOTH_FINS:
                continue
            udp = protocol == _UDP
            if _silence(now, seen) <= (idle_udp if udp else idle_tcp):
                by_backend[backend] += 1
            else:
                silent[keys[at * FLOW.size : (at + 1) * FLOW.size]] = (backend, udp)
    return silent


def _count_answered(
    table: Fd,
    silent: Mapping[bytes, tuple[int, bool]],
    settings: Settings,
    now: int,
    by_backend: Counter[int],
) -> None:
    """Count the silent clients to whom their backend still speaks."""
    for _keys, values in map_contents.blocks(table, info.map_(table)):
        for flow, seen in _NAT_ORIGIN.iter_unpack(values):
            if flow in silent:
                backend, udp = silent[flow]
                if _silence(now, seen) <= (settings.idle_udp if udp else settings.idle_tcp):
                    by_backend[backend] += 1


def _silence(now: int, seen: int) -> int:
    """Since when, in units of 2^30 ns; an entry written after ``now`` was read counts as now's."""
    silent = (now - seen) & 0xFFFFFFFF
    return silent if silent < 1 << 31 else 0


def settleable(
    ring: Ring, service: int, live: Live, settings: Settings, now: int, udp: bool = False
) -> array[int]:
    """The slots whose flows need no table any more, ascending; ``now`` as ``count`` got it.

    None before the ring has rested for as long as a connection may be silent: one that has not
    been seen since the move may still be there.
    """
    idle = max(settings.idle_udp, settings.udp_grace) if udp else settings.idle_tcp
    if _silence(now, ring.moved) <= idle + 1:
        return array("I")
    busy = {
        slot
        for of, slot, backend in live.places
        if of == service and slot < RING_SLOTS and ring.backends[slot] != backend
    }
    return array("I", [slot for slot in unsettled(ring) if slot not in busy])


def forget(
    tables: Mapping[str, Fd],
    service: int = 0,
    slots: Collection[int] = (),
    backends: Collection[int] = (),
) -> int:
    """Delete what the tables hold of these slots of a service and of these backends; how many.

    For slots that have just been settled, since nothing touches their entries from then on, and a
    later move would believe them; and for backends whose ids are about to be free.
    """
    forgotten = 0
    for name, table in tables.items():
        if name == REPLY_TABLE:
            continue  # the data plane believes a reply only as long as it knows the flow
        for key in list(_of(name, table, service, frozenset(slots), frozenset(backends))):
            forgotten += maps.delete(table, key)
    return forgotten


def _of(
    name: str, table: Fd, service: int, slots: frozenset[int], backends: frozenset[int]
) -> Iterator[bytes]:
    about = info.map_(table)
    for key, value in map_contents.items(table, about):
        if name == NAT_TABLE:
            if _NAT_ENTRY.unpack(value)[0] in backends:
                yield key
            continue
        backend, slot, _seen, _state = _FLOW_ENTRY.unpack(value)
        of_slot = slot in slots and _SERVICE_OF_FLOW.unpack(key)[0] == service
        if of_slot or backend in backends:
            yield key
