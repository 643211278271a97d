# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Balancers as the report shows them: what they send where, and what share each backend gets."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .model import Host
from .sankey import Flow, Node

COLOURS = 6  # classes c0 to c5 of the style sheet


@dataclass(frozen=True)
class Share:
    """A backend of a service. Shares are in per cent: ``actual`` of the connections that were
    opened, ``declared`` of the slots of the ring; negative ones are not known.
    """

    name: str
    address: str
    state: str
    connections: int
    packets: int
    octets: int
    actual: float
    declared: float

    @property
    def is_bad(self) -> bool:
        return "down" in self.state


@dataclass(frozen=True)
class Service:
    """A service, with what all balancers did for it."""

    name: str
    place: str
    forwarding: str
    colour: str
    balancers: tuple[str, ...]
    shares: tuple[Share, ...]
    connections: int
    packets: int
    dropped: int


@dataclass(frozen=True)
class Refused:
    """Packets that went to no backend, by what became of them."""

    host: str
    reason: str
    packets: int
    is_bad: bool


def names_of(hosts: Sequence[Host]) -> dict[str, str]:
    """Hosts by their addresses; an address that several have, such as a VIP, is nobody's."""
    found: dict[str, str] = {}
    for host in hosts:
        for address in set(host.addresses):
            found[address] = "" if address in found else host.name
    return {address: name for address, name in found.items() if name}


def services(hosts: Sequence[Host]) -> list[Service]:
    """The services of all balancers, those of one name and place together."""
    names = names_of(hosts)
    found: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for host, service in _each(hosts):
        found.setdefault((str(service["name"]), place_of(service)), []).append((host.name, service))
    return [
        _service(name, place, f"c{number % COLOURS}", told, names)
        for number, ((name, place), told) in enumerate(sorted(found.items()))
    ]


def _each(hosts: Sequence[Host]) -> Iterator[tuple[Host, Mapping[str, Any]]]:
    for host in hosts:
        for service in (host.balancer or {}).get("services", ()):
            yield host, service


def place_of(service: Mapping[str, Any]) -> str:
    """Such as ``192.0.2.10:80/tcp``; port 0 is every port."""
    return f"{endpoint(str(service['vip']), service['port'] or 0)}/{service['protocol']}"


def endpoint(address: str, port: int) -> str:
    """An address and a port as people write them; port 0 is left out."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _service(
    name: str,
    place: str,
    colour: str,
    told: Sequence[tuple[str, Mapping[str, Any]]],
    names: Mapping[str, str],
) -> Service:
    by_backend: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for host, service in told:
        for each in service["backends"]:
            place_there = str(each["address"]), int(each["port"])
            by_backend.setdefault(place_there, []).append({**each, "host": host})
    opened = sum(_sum(each, "connections") for each in by_backend.values())
    slots = sum(int(each["slots"]) for parts in by_backend.values() for each in parts)
    shares = [
        Share(
            name=names.get(address) or endpoint(address, port),
            address=endpoint(address, port),
            state=_state(parts),
            connections=_sum(parts, "connections"),
            packets=_sum(parts, "packets"),
            octets=_sum(parts, "bytes"),
            actual=100 * _sum(parts, "connections") / opened if opened else -1.0,
            declared=100 * sum(int(each["slots"]) for each in parts) / slots if slots else -1.0,
        )
        for (address, port), parts in sorted(by_backend.items(), key=_in_order)
    ]
    return Service(
        name=name,
        place=place,
        forwarding=str(told[0][1]["forwarding"]),
        colour=colour,
        balancers=tuple(host for host, _service in told),
        shares=tuple(shares),
        connections=opened,
        packets=sum(each.packets for each in shares),
        dropped=sum(int(service["counters"]["dropped"]) for _host, service in told),
    )


def _in_order(item: tuple[tuple[str, int], object]) -> tuple[int, int, int]:
    (address, port), _parts = item
    number = ipaddress.ip_address(address)
    return number.version, int(number), port


def _sum(parts: Sequence[Mapping[str, Any]], counter: str) -> int:
    return sum(int(each["counters"][counter]) for each in parts)


def _state(parts: Sequence[Mapping[str, Any]]) -> str:
    """What the balancers say of it: what is wrong first, and who says it where not all do."""
    said: dict[str, list[str]] = {}
    for each in parts:
        word = str(each["health"] if each["state"] == "active" else each["state"])
        said.setdefault("not checked" if word == "unknown" else word, []).append(each["host"])
    if len(said) == 1:
        return next(iter(said))
    order = sorted(said, key=lambda word: word == "up")
    return f"{order[0]} on {', '.join(said[order[0]])}"


def flows(hosts: Sequence[Host]) -> list[Flow]:
    """Packets by service, by the balancer's hook, by backend."""
    names = names_of(hosts)
    known = {(each.name, each.place): each for each in services(hosts)}
    places = _places(hosts, names)
    found = []
    for host, service in _each(hosts):
        shown = known[str(service["name"]), place_of(service)]
        source = Node(shown.name, f"{shown.place} · {shown.forwarding}", shown.colour)
        hook = Node(host.name, _hook(host))
        for each in service["backends"]:
            address = endpoint(str(each["address"]), int(each["port"]))
            name = names.get(str(each["address"]), "")
            # A host is one node, whatever its addresses and ports are.
            target = Node(name, places[name]) if name else Node(address, "backend")
            packets = int(each["counters"]["packets"])
            found.append(Flow(source, hook, target, packets, shown.colour))
    return found


def _places(hosts: Sequence[Host], names: Mapping[str, str]) -> dict[str, str]:
    """The addresses at which each host is a backend."""
    found: dict[str, list[str]] = {}
    for _host, service in _each(hosts):
        for each in service["backends"]:
            found.setdefault(names.get(str(each["address"]), ""), []).append(str(each["address"]))
    return {name: ", ".join(dict.fromkeys(each)) for name, each in found.items()}


def _hook(host: Host) -> str:
    """Such as ``xdp eth1 native``."""
    places = [
        " ".join(filter(None, (each.hook, each.target, each.mode.split(" ")[0])))
        for each in host.attachments
        if each.hook == "xdp" and each.stack and each.program.startswith("xdp_lb")
    ]
    return ", ".join(dict.fromkeys(places)) or "xdp, not attached"


def refused(hosts: Sequence[Host]) -> list[Refused]:
    """What did not reach a backend; drops are errors, the rest is not for the balancer."""
    return [
        Refused(host.name, str(reason), int(packets), str(reason).startswith("drop_"))
        for host in hosts
        for reason, packets in (host.balancer or {}).get("reasons", {}).items()
        if packets
    ]
