# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the maps are to hold for a declaration, but for the rings: pure functions.

What has an id keeps it. A new service or backend gets one that nothing names any more, and rather
one that was not in use lately.
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..resource.errors import Failure
from . import layout
from .layout import Address, Backend, ServiceKey, Settings
from .model import ANY_PORT, PROTOCOLS, Desired, Service
from .ring import MAX_MEMBERS
from .tables import Tables

_PING = {4: int(socket.IPPROTO_ICMP), 6: int(socket.IPPROTO_ICMPV6)}
_SLOT_IDS = 1 << 16  # a slot names a backend by 16 bits

# What lets one hold more: the option of bpf_prog, and the role's.
_GROW_SERVICES = (
    "grow service_names, rings and service_counters by map_max_entries of bpf_prog "
    "(xdp_lb_max_services of the role)"
)
_GROW_ENTRIES = "grow {} by map_max_entries of bpf_prog (xdp_lb_max_services of the role)"
_GROW_BACKENDS = (
    "grow backends, backend_counters and next_hops by map_max_entries of bpf_prog "
    "(xdp_lb_max_backends of the role)"
)


@dataclass(frozen=True)
class Placed:
    """A declared service with its id, and its backends' records by id."""

    id: int
    declared: Service
    backends: Mapping[int, Backend]

    @property
    def forwarding(self) -> int:
        """Index in ``layout.FORWARDING``."""
        return layout.FORWARDING.index(self.declared.forwarding)


def by_service(backends: Mapping[int, Backend]) -> dict[int, dict[int, Backend]]:
    """Backends by id, by their service's id."""
    found: dict[int, dict[int, Backend]] = {}
    for number, backend in backends.items():
        found.setdefault(backend.service, {})[number] = backend
    return found


def place(desired: Desired, tables: Tables, busy: Collection[int]) -> tuple[Placed, ...]:
    """Give what was declared its ids; ``busy`` are backend ids that rings or connections name.

    Raises Failure when the maps cannot hold it all.
    """
    _check_room(desired, tables)
    known = {name: number for number, name in sorted(tables.names.items(), reverse=True) if number}
    service_ids = _free_ids(_service_ids(tables), _service_limit(tables), "service", _GROW_SERVICES)
    taken = {*tables.backends, *busy}
    backend_ids = _free_ids(taken, _backend_limit(tables), "backend", _GROW_BACKENDS)
    held = by_service(tables.backends)
    placed = []
    for service in desired.services:
        number = known.get(service.name) or next(service_ids)
        records = _records(number, service, held.get(number, {}), backend_ids)
        placed.append(Placed(number, service, records))
    return tuple(placed)


def lacks_ids(desired: Desired, tables: Tables) -> bool:
    """Whether some declared backend has no record yet, so that an id has to be found for it."""
    known = {name: number for number, name in tables.names.items()}
    held = {
        (backend.service, backend.address, backend.port) for backend in tables.backends.values()
    }
    return any(
        (known.get(service.name), *backend.identity) not in held
        for service in desired.services
        for backend in service.backends
    )


def _records(
    number: int, service: Service, held: Mapping[int, Backend], ids: Iterator[int]
) -> dict[int, Backend]:
    known = {(each.address, each.port): key for key, each in sorted(held.items(), reverse=True)}
    records = {}
    for backend in service.backends:
        key = known.get(backend.identity)
        health = held[key].health if key is not None and service.checked else 0
        records[next(ids) if key is None else key] = Backend(
            address=backend.address,
            service=number,
            port=backend.port,
            state=layout.STATES.index(backend.state),
            health=health if health < len(layout.HEALTH) else 0,
            weight=backend.weight,
        )
    return records


def _free_ids(taken: Collection[int], last: int, what: str, advice: str) -> Iterator[int]:
    """Ids in the order in which to give them: those after the highest that is in use come first."""
    top = max(taken, default=0)
    for number in (*range(top + 1, last + 1), *range(1, min(top, last) + 1)):
        if number not in taken:
            yield number
    raise Failure(
        f"there is no room for the new beside the old: each {what} needs one of the {last} ids, "
        f"and what is removed frees its own only afterwards; remove first and add in a second run, "
        f"or {advice}"
    )


def _service_ids(tables: Tables) -> set[int]:
    entries = (layout.Service.unpack(value).id for value in tables.services.values())
    owners = (backend.service for backend in tables.backends.values())
    return {*tables.names, *tables.rings, *entries, *owners}


def _service_limit(tables: Tables) -> int:
    return _limit(tables, ("service_names", "rings", "service_counters"))


def _backend_limit(tables: Tables) -> int:
    return min(_limit(tables, ("backends", "backend_counters")), _SLOT_IDS - 1)


def _limit(tables: Tables, names: Iterable[str]) -> int:
    """The highest id that all these maps take."""
    return min(tables.limits[name] for name in names) - 1


def _check_room(desired: Desired, tables: Tables) -> None:
    backends = sum(len(service.backends) for service in desired.services)
    counts = [
        (len(desired.services), _service_limit(tables), "services", _GROW_SERVICES),
        (backends, _backend_limit(tables), "backends", _GROW_BACKENDS),
    ]
    for version, name in ((4, "services4"), (6, "services6")):
        own = [service for service in desired.services if service.vip.version == version]
        vips = len({service.vip for service in own})
        what = f"IPv{version} services and addresses"
        advice = _GROW_ENTRIES.format(name)
        counts.append((len(own) + vips, tables.limits[name], what, advice))
    for service in desired.services:
        if len(service.backends) > MAX_MEMBERS:
            raise Failure(
                f"service {service.name}: {len(service.backends)} backends are declared, and a "
                f"ring has at most {MAX_MEMBERS}; divide them among several services"
            )
    for declared, room, what, advice in counts:
        if declared > room:
            raise Failure(
                f"{declared} {what} are declared, and the pinned maps hold {room}; {advice}, which "
                "loads the balancer with new maps"
            )


def entries(placed: Iterable[Placed]) -> dict[bytes, bytes]:
    """What the service maps hold: an entry for each service and each of their addresses."""
    found: dict[bytes, bytes] = {}
    for each in placed:
        service = each.declared
        flags = layout.SERVICE_BY_SOURCE if service.by_source else 0
        key = ServiceKey(service.vip, service.port, PROTOCOLS[service.protocol])
        found[key.pack()] = layout.Service(each.id, each.forwarding, flags).pack()
        found[vip_key(service.vip).pack()] = layout.Service(0, 0).pack()
    return found


def vip_key(address: Address) -> ServiceKey:
    """The key that says that an address is ours."""
    return ServiceKey(address, 0, _PING[address.version])


def settings(desired: Desired, now: Settings) -> Settings:
    """What holds for the whole balancer; when a ring last changed is a fact, not declared."""
    if desired.state == "absent":
        return Settings()
    flags = layout.SETTINGS_FILTER
    for service in desired.services:
        if service.port == ANY_PORT:
            flags |= layout.SETTINGS_ANY_PORT
        if service.forwarding == "nat":
            four = service.vip.version == 4
            flags |= layout.SETTINGS_NAT4 if four else layout.SETTINGS_NAT6
    return dataclasses.replace(
        now,
        layout=layout.LAYOUT,
        flags=flags,
        source4=desired.source4,
        source6=desired.source6,
        nat_port_first=desired.nat_ports[0],
        nat_port_last=desired.nat_ports[1],
        idle_tcp=desired.idle_tcp,
        idle_udp=desired.idle_udp,
        udp_grace=desired.udp_grace,
    )
