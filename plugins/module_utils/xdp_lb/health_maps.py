# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the health service reads from the balancer's maps, and writes into them.

It writes health and the rings that follow from it; who is in a ring and how one ring becomes
another is decided by the functions that the module uses, too. What is written is worked out anew
from the maps with the host's lock held.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..resource.errors import Failure
from ..resource.lock import host_lock
from . import layout, members, ring, tables
from .layout import HEALTH
from .members import Moment
from .model import endpoint
from .moves import Ring
from .tables import Map, Tables

LOCK_SECONDS = 60

Key = tuple[str, str, int]  # service, address, own port: what a backend is known by


@dataclass(frozen=True)
class Backend:
    """A server of one service. ``port`` is its own; 0: the one that clients send to."""

    service: str
    address: str
    port: int
    service_port: int  # 0: any
    disabled: bool
    health: str

    @property
    def key(self) -> Key:
        """What it is known by, whatever its id is."""
        return self.service, self.address, self.port

    def __str__(self) -> str:
        where = endpoint(ipaddress.ip_address(self.address), self.port or self.service_port)
        return f"{self.service} {where}"


@dataclass(frozen=True)
class Written:
    """What was written: the backends as they were, each with its new health.

    ``ring_sizes`` are members and active backends by service, ``kept`` the services that keep all
    in their ring because fewer than the floor are up.
    """

    changed: Sequence[tuple[Backend, str]]
    ring_sizes: Mapping[str, tuple[int, int]]
    kept: frozenset[str]


@contextlib.contextmanager
def opened(pin_dir: str) -> Iterator[Mapping[str, Map]]:
    """The balancer's maps. Raises Failure when it is not loaded, or in another layout."""
    try:
        with tables.opened(pin_dir) as found:
            yield found
    except FileNotFoundError as error:
        raise Failure(f"no load balancer is pinned in {pin_dir}; waiting for it") from error


def backends(pin_dir: str) -> dict[int, Backend]:
    """The backends by id, as the maps have them now. Raises Failure."""
    with opened(pin_dir) as found:
        return _backends(tables.read(found, rings=False))


def _backends(now: Tables) -> dict[int, Backend]:
    kinds = kinds_of(now)
    return {
        number: Backend(
            service=now.names[each.service],
            address=str(each.address),
            port=each.port,
            service_port=kinds[each.service].port,
            disabled=each.state == members.DISABLED,
            health=HEALTH[each.health],
        )
        for number, each in now.backends.items()
        if each.service in now.names and each.service in kinds
    }


def write(pin_dir: str, wanted: Mapping[Key, str], every_ring: bool = False) -> Written:
    """Give backends the health that is wanted, and their services the rings that follow from it.

    A backend that is gone meanwhile is left out. ``every_ring`` looks at all rings, for one that a
    killed run has left behind its backends. Raises Failure.
    """
    with host_lock(LOCK_SECONDS), opened(pin_dir) as found:
        now = tables.read(found, rings=False)
        known = _backends(now)
        changed = {
            number: wanted[each.key]
            for number, each in known.items()
            if wanted.get(each.key, each.health) != each.health
        }
        records = dict(now.backends)
        for number, health in changed.items():
            records[number] = replace(records[number], health=HEALTH.index(health))
        stale = set(now.names) if every_ring else _stale(now, records)
        rings = _rings(pin_dir, found, now, records, stale)
        tables.put_backends(found, {number: records[number] for number in changed})
        tables.put_rings(found, rings)
    return Written(
        [(known[number], health) for number, health in changed.items()],
        {
            now.names[number]: (len(members.members(own)), _active(own))
            for number, own in _by_service(records).items()
            if number in now.names
        },
        frozenset(
            now.names[number]
            for number, own in _by_service(records).items()
            if number in now.names and members.keeps_all(own)
        ),
    )


def _stale(now: Tables, records: Mapping[int, layout.Backend]) -> set[int]:
    """The services, by id, whose rings get other members."""
    before, after = _by_service(now.backends), _by_service(records)
    return {
        number
        for number, own in after.items()
        if members.members(before[number]) != members.members(own)
    }


def _rings(
    pin_dir: str,
    found: Mapping[str, Map],
    now: Tables,
    records: Mapping[int, layout.Backend],
    stale: set[int],
) -> dict[int, bytes]:
    """Those rings of these services that are not what they are to be."""
    if not stale:
        return {}
    after = _by_service(records)
    kinds = kinds_of(now)
    moment = Moment(layout.coarse(time.monotonic_ns()), now.settings.udp_grace)
    rings = {}
    with ring.open_pinned(os.path.join(pin_dir, ring.PROGRAM)) as computer:
        for number in sorted(stale & kinds.keys()):
            raw = tables.read_ring(found, number)
            old = Ring.unpack(raw) if raw else None
            kind = kinds[number]
            new = members.next_ring(
                computer, after.get(number, {}), kind.forwarding, kind.udp, old, moment
            )
            if new != old:
                rings[number] = new.pack()
    return rings


@dataclass(frozen=True)
class KindOfService:
    """What the service maps say of a service: its way of forwarding as in ``layout.FORWARDING``."""

    port: int
    udp: bool
    forwarding: int


def kinds_of(now: Tables) -> dict[int, KindOfService]:
    """The services by id; bare addresses are left out."""
    found = {}
    for raw_key, raw_value in now.services.items():
        key, value = layout.ServiceKey.unpack(raw_key), layout.Service.unpack(raw_value)
        if value.id:
            udp = key.protocol == socket.IPPROTO_UDP
            found[value.id] = KindOfService(key.port, udp, value.forwarding)
    return found


def _by_service(records: Mapping[int, layout.Backend]) -> dict[int, dict[int, layout.Backend]]:
    found: dict[int, dict[int, layout.Backend]] = {}
    for number, record in records.items():
        found.setdefault(record.service, {})[number] = record
    return found


def _active(own: Mapping[int, layout.Backend]) -> int:
    return sum(backend.state == members.ACTIVE for backend in own.values())
