# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Services and settings in an operator's terms, for diffs and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import layout, ring
from .layout import Address, Backend, ServiceKey, Settings
from .members import ACTIVE
from .model import PROTOCOLS, Desired, endpoint
from .moves import Ring
from .ring import Member

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
_FEATURES = {
    layout.SETTINGS_ANY_PORT: "any_port",
    layout.SETTINGS_NAT4: "nat_ipv4",
    layout.SETTINGS_NAT6: "nat_ipv6",
    layout.SETTINGS_FILTER: "filter",
}


@dataclass(frozen=True)
class Shown:
    """A service as the maps have it, or are to have it. ``live`` are connections by backend id."""

    id: int
    entries: Mapping[bytes, bytes]  # of the service maps
    backends: Mapping[int, Backend]
    ring: Ring | None
    live: Mapping[int, int]
    vips: frozenset[Address] = frozenset()  # those that the data plane knows as such


def place_of(key: ServiceKey) -> str:
    """Such as ``192.0.2.1:80/tcp``."""
    protocol = _PROTOCOL_NAMES.get(key.protocol, str(key.protocol))
    return f"{endpoint(key.address, key.port)}/{protocol}"


def name_of(backend: Backend) -> str:
    """Such as ``10.0.0.1``, or ``10.0.0.1:8080`` with a port of its own."""
    if backend.address is None:
        return "none"
    return endpoint(backend.address, backend.port) if backend.port else str(backend.address)


def weight_of(backend: Backend) -> int:
    """Its share of new connections as an operator set it: 0 unless it is active."""
    return backend.weight if backend.state == ACTIVE else 0


def service(shown: Shown) -> dict[str, Any]:
    """A service, for a diff. ``slots_leaving`` still lead old connections to another backend."""
    slots = ring.counts(shown.ring.backends) if shown.ring else {}
    return {
        "id": shown.id,
        "serves": sorted(
            f"{place_of(ServiceKey.unpack(key))} {_treatment(value)}"
            for key, value in shown.entries.items()
        ),
        "vips": sorted(map(str, shown.vips)),
        "backends": {
            name_of(each): _backend(number, each, slots, shown.live)
            for number, each in _in_order(shown.backends)
        },
        "slots_leaving": layout.RING_SLOTS - shown.ring.previous.count(0) if shown.ring else 0,
    }


def _treatment(value: bytes) -> str:
    service = layout.Service.unpack(value)
    return f"{_word(layout.FORWARDING, service.forwarding)} by {affinity(service)}"


def affinity(service: layout.Service) -> str:
    """``source`` or ``flow``: what decides on the backend."""
    return "source" if service.flags & layout.SERVICE_BY_SOURCE else "flow"


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number] if number < len(words) else str(number)


def _in_order(backends: Mapping[int, Backend]) -> list[tuple[int, Backend]]:
    return sorted(backends.items(), key=lambda item: (*_sort_key(item[1]), item[0]))


def _sort_key(backend: Backend) -> tuple[int, bytes, int]:
    return layout.family_of(backend.address), layout.pack_address(backend.address), backend.port


def _backend(
    number: int, backend: Backend, slots: Mapping[int, int], live: Mapping[int, int]
) -> dict[str, Any]:
    return {
        "weight": weight_of(backend),
        "state": _word(layout.STATES, backend.state),
        "health": _word(layout.HEALTH, backend.health),
        "slots": slots.get(number, 0),
        "connections": live.get(number, 0),
    }


def digest(found: Ring | None, backends: Mapping[int, Backend]) -> str:
    """What tells whether two balancers have the same ring; "" when there is none to compare."""
    known = [
        Member(number, each.address, each.port, each.weight)
        for number, each in backends.items()
        if each.address is not None
    ]
    if found is None:
        return ""
    try:
        return ring.digest(found.backends, known)
    except KeyError:  # it names a backend that the service does not have
        return ""


def declared(desired: Desired) -> Iterable[tuple[str, dict[str, Any]]]:
    """The declared services by name, for a host that holds nothing yet."""
    for each in desired.services:
        backends = {
            str(backend): {
                "weight": backend.weight if backend.state == "active" else 0,
                "state": backend.state,
            }
            for backend in each.backends
        }
        treatment = f"{each.forwarding} by {'source' if each.by_source else 'flow'}"
        serves = [f"{each.place} {treatment}"]
        yield each.name, {"serves": serves, "vips": [str(each.vip)], "backends": backends}


def settings(found: Settings) -> dict[str, Any] | None:
    """The settings, for a diff; None when there are none."""
    if not found.layout:
        return None
    return {
        "sources": {
            "ipv4": str(found.source4) if found.source4 else None,
            "ipv6": str(found.source6) if found.source6 else None,
        },
        "nat_ports": {"first": found.nat_port_first, "last": found.nat_port_last},
        "idle_timeout": {"tcp": found.idle_tcp, "udp": found.idle_udp},
        "udp_grace": found.udp_grace,
        "features": [word for flag, word in _FEATURES.items() if found.flags & flag],
        "layout": found.layout,
    }


def _leaving(found: Ring | None) -> dict[int, int]:
    """From how many slots old connections may still lead to each backend, by id."""
    if found is None or found.previous.count(0) == layout.RING_SLOTS:
        return {}
    return ring.counts(found.previous)


def result(name: str, shown: Shown, moved: int) -> dict[str, Any]:
    """A service, for the module's result."""
    slots = ring.counts(shown.ring.backends) if shown.ring else {}
    leaving = _leaving(shown.ring)
    backends = [
        {
            "id": number,
            "address": str(each.address),
            "port": each.port,
            **_backend(number, each, slots, shown.live),
            "weight": each.weight,
            "leaving": leaving.get(number, 0),
        }
        for number, each in _in_order(shown.backends)
    ]
    places = sorted(
        (
            (ServiceKey.unpack(key), layout.Service.unpack(value))
            for key, value in shown.entries.items()
        ),
        key=lambda item: (item[0].address.version, *map(str, item)),
    )
    key, value = places[0] if places else (None, layout.Service(0, 0))
    return {
        "name": name,
        "id": shown.id,
        "vip": str(key.address) if key else None,
        "port": key.port if key else None,
        "protocol": _PROTOCOL_NAMES.get(key.protocol) if key else None,
        "forwarding": _word(layout.FORWARDING, value.forwarding) if key else None,
        "affinity": affinity(value),
        "digest": digest(shown.ring, shown.backends),
        "slots_moved": moved,
        "connections": sum(each["connections"] for each in backends),
        "backends": backends,
    }
