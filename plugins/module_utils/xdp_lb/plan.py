# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""From the maps as they are to the maps as declared: pure functions."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..resource.engine import Change
from . import layout, reach, targets, views, wanted
from .layout import Address, Backend, ServiceKey, Settings
from .members import DISABLED, keeps_all
from .model import Backend as Declared
from .model import Desired
from .moves import Ring
from .neighbours import Neighbour
from .tables import Tables
from .targets import Target
from .views import Shown
from .wanted import Placed
from .writes import Writes

_LEFT = "what a run that was killed left"


@dataclass(frozen=True)
class Facts:
    """What the plan is made from.

    ``live`` are connections by backend id, ``ports`` those that the host takes for its own.
    """

    tables: Tables
    rings: Mapping[int, Ring]
    live: Mapping[int, int]
    targets: tuple[Target, ...] = ()
    ways: Mapping[Address, Neighbour] = field(default_factory=dict)
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Index:
    """The same by service id: entries of the service maps as they are and are to be, backends."""

    now: Mapping[int, Mapping[bytes, bytes]]
    then: Mapping[int, Mapping[bytes, bytes]]
    wanted: frozenset[bytes]  # the keys of all entries that are to be
    held: Mapping[int, Mapping[int, Backend]]
    vips_now: frozenset[Address]
    vips_then: frozenset[Address]


def fresh(desired: Desired, warning: str) -> list[Change]:
    """What a host that has no balancer yet would get."""
    changes = [
        Change("add", f"service {name}", None, shown) for name, shown in views.declared(desired)
    ]
    return [dataclasses.replace(each, warning=warning) for each in changes[:1]] + changes[1:]


def changes(desired: Desired, facts: Facts) -> list[Change]:
    """The changes in the order of the names, settings first. Raises Failure."""
    index = _index(facts)
    return [
        *_plan_settings(desired, facts),
        *_plan_filter(facts),
        *_plan_services(facts, index),
        *_plan_removals(facts, index),
        *_plan_leftovers(facts, index),
    ]


def _index(facts: Facts) -> Index:
    then = wanted.entries(each.placed for each in facts.targets)
    return Index(
        _by_id(facts.tables.services),
        _by_id(then),
        frozenset(then),
        wanted.by_service(facts.tables.backends),
        _vips(facts.tables.services),
        _vips(then),
    )


def _by_id(entries: Mapping[bytes, bytes]) -> dict[int, dict[bytes, bytes]]:
    found: dict[int, dict[bytes, bytes]] = {}
    for key, value in entries.items():
        found.setdefault(layout.Service.unpack(value).id, {})[key] = value
    return found


def _vips(entries: Mapping[bytes, bytes]) -> frozenset[Address]:
    """The addresses that the data plane knows as such."""
    keys = map(ServiceKey.unpack, entries)
    return frozenset(key.address for key in keys if key == wanted.vip_key(key.address))


def _plan_settings(desired: Desired, facts: Facts) -> Iterator[Change]:
    now = facts.tables.settings
    then = wanted.settings(desired, now)
    if now == then:
        return
    before, after = views.settings(now), views.settings(then)
    warning = "; ".join(_settings_warnings(now, then, facts.ports))
    action = "set" if after else "clear"
    yield Change(action, "settings", before, after, warning, Writes(settings=then))


def _settings_warnings(now: Settings, then: Settings, ports: frozenset[int]) -> Iterator[str]:
    gone = [each for each in (now.source4, now.source6) if each not in (then.source4, then.source6)]
    if now.layout and then.layout and any(gone) and now.flags & ~layout.SETTINGS_ANY_PORT:
        yield "connections of nat services break: backends answer to another address from now on"
    shared = ports.intersection(range(then.nat_port_first, then.nat_port_last + 1))
    if shared and then.flags & (layout.SETTINGS_NAT4 | layout.SETTINGS_NAT6):
        yield (
            f"nat_ports {then.nat_port_first} to {then.nat_port_last} and the ports that this host "
            f"takes for its own connections share {len(shared)}, from {min(shared)} to "
            f"{max(shared)}: a backend's answer to the host, to a health check too, can go to a "
            "client instead; set other nat_ports, or put theirs into "
            "net.ipv4.ip_local_reserved_ports"
        )


def _plan_filter(facts: Facts) -> Iterator[Change]:
    """The filter follows from the services that are there; ``writes.write`` keeps it so."""
    if facts.tables.filter != layout.pack_filter(facts.tables.services):
        before, after = {"fits the services": False}, {"fits the services": True}
        yield Change("rebuild", "service filter", before, after, "", Writes())


def _plan_services(facts: Facts, index: Index) -> Iterator[Change]:
    for target in sorted(facts.targets, key=lambda each: each.placed.declared.name):
        number, name = target.placed.id, target.placed.declared.name
        held = index.held.get(number, {})
        entries = _entry_writes(facts.tables, index, number)
        writes = targets.service_writes(
            target, facts.tables, held, facts.rings.get(number), entries
        )
        if not writes:
            continue
        is_there = number in index.now
        before = _before(facts, index, number) if is_there else None
        after = {**_after(target, facts, index), "slots_moved": target.moved}
        action = "change" if is_there else "add"
        warning = "; ".join(_warnings(target, facts, held))
        yield Change(action, f"service {name}", before, after, warning, writes)


def _entry_writes(now: Tables, index: Index, number: int) -> dict[bytes, bytes | None]:
    """What a service changes in the service maps, with its address where no other brings it."""
    then = dict(index.then.get(number, {}))
    for key in [*then]:
        vip = wanted.vip_key(ServiceKey.unpack(key).address).pack()
        then[vip] = index.then[0][vip]
    writes: dict[bytes, bytes | None] = {
        key: value for key, value in then.items() if now.services.get(key) != value
    }
    for key in index.now.get(number, {}):
        if key not in index.wanted:
            writes[key] = None
        vip = wanted.vip_key(ServiceKey.unpack(key).address).pack()
        if vip in now.services and vip not in index.wanted:
            writes[vip] = None
    return writes


def _before(facts: Facts, index: Index, number: int) -> dict[str, Any]:
    entries = index.now.get(number, {})
    return views.service(
        Shown(
            number,
            entries,
            index.held.get(number, {}),
            facts.rings.get(number),
            facts.live,
            _own_vips(entries, index.vips_now),
        )
    )


def _after(target: Target, facts: Facts, index: Index) -> dict[str, Any]:
    entries = index.then.get(target.placed.id, {})
    return views.service(
        Shown(
            target.placed.id,
            entries,
            target.placed.backends,
            target.ring,
            facts.live,
            _own_vips(entries, index.vips_then),
        )
    )


def _own_vips(entries: Iterable[bytes], known: frozenset[Address]) -> frozenset[Address]:
    return frozenset(ServiceKey.unpack(key).address for key in entries) & known


def new_backends(placed: Placed, now: Tables) -> list[Declared]:
    """Backends that have not been sent packets in this way so far."""
    own = placed.id.to_bytes(4, sys.byteorder)  # the first member of struct service
    forwardings = {
        layout.Service.unpack(raw).forwarding
        for raw in now.services.values()
        if raw.startswith(own)
    }
    known = {
        (each.address, each.port)
        for number, each in now.backends.items()
        if each.service == placed.id and each.state != DISABLED
    }
    if forwardings != {placed.forwarding}:
        known = set()
    return [
        each
        for each in placed.declared.backends
        if each.state != "disabled" and each.identity not in known
    ]


def _warnings(target: Target, facts: Facts, held: Mapping[int, Backend]) -> Iterator[str]:
    declared, records = target.placed.declared, target.placed.backends
    yield from reach.check(declared, new_backends(target.placed, facts.tables), facts.ways)
    for number, backend in held.items():
        later = records.get(number)
        lost = facts.live.get(number, 0)
        if lost and backend.state != DISABLED and (later is None or later.state == DISABLED):
            yield (
                f"service {declared.name}: {lost} connections to backend {views.name_of(backend)} "
                "break; set its state to draining first and wait until they are gone"
            )
    if keeps_all(records):
        yield (
            f"service {declared.name}: most of its active backends are down, so all of them "
            "stay in the ring"
        )
    if not any(each.state == "active" and each.weight for each in declared.backends):
        yield f"service {declared.name}: no backend is active, so new connections are dropped"


def _plan_removals(facts: Facts, index: Index) -> Iterator[Change]:
    kept = {target.placed.id for target in facts.targets}
    names = {target.placed.declared.name for target in facts.targets}
    for number, name in sorted(facts.tables.names.items(), key=lambda item: (item[1], item[0])):
        if number in kept:
            continue
        entries = _entry_writes(facts.tables, index, number)
        writes = targets.removal_writes([number], facts.tables, index.held, entries)
        lost = sum(facts.live.get(each, 0) for each in index.held.get(number, {}))
        warning = f"service {name}: its {lost} connections break" if lost else ""
        title = f"service {name} (id {number})" if name in names else f"service {name}"
        yield Change("remove", title, _before(facts, index, number), None, warning, writes)


def _plan_leftovers(facts: Facts, index: Index) -> Iterator[Change]:
    """What belongs to no service that has a name."""
    now = facts.tables
    known = {*now.names, *(target.placed.id for target in facts.targets)}
    numbers = sorted({*now.rings, *index.held, *index.now} - known)
    entries = _stray_entries(now, index, known)
    writes = targets.removal_writes(numbers, now, index.held, entries)
    if writes:
        before = {
            "serves": sorted(views.place_of(ServiceKey.unpack(key)) for key in entries),
            "backends": sorted(
                views.name_of(each) for key in numbers for each in index.held.get(key, {}).values()
            ),
            "rings": sum(number in now.rings for number in numbers),
        }
        yield Change("remove", _LEFT, before, None, "", writes)


def _stray_entries(now: Tables, index: Index, known: set[int]) -> dict[bytes, bytes | None]:
    """Entries that no service has, and addresses that no service's entry has."""
    taken = {
        wanted.vip_key(ServiceKey.unpack(key).address).pack()
        for number, entries in index.now.items()
        for key in entries
        if number in known
    }
    return {
        key: None
        for key, value in now.services.items()
        if key not in index.wanted
        and key not in taken
        and layout.Service.unpack(value).id not in known
    }


def results(
    now: Tables, rings: Mapping[int, Ring], live: Mapping[int, int], moved: Mapping[str, int]
) -> Sequence[dict[str, Any]]:
    """Each service as it is, by name."""
    entries, held = _by_id(now.services), wanted.by_service(now.backends)
    return [
        views.result(
            name,
            Shown(number, entries.get(number, {}), held.get(number, {}), rings.get(number), live),
            moved.get(name, 0),
        )
        for number, name in sorted(now.names.items(), key=lambda item: (item[1], item[0]))
    ]
