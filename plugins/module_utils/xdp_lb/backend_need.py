# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a server behind a load balancer needs, of the services that are declared for the balancer.

The same list that the balancer has says it: a service concerns this host when one of its backends
has an address of the host. Pure functions of that list and of what the host has.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..resource.errors import Failure
from .backend_host import PREFERENCES, Host
from .layout import FORWARDING, Address
from .model import parse_address

TUNNEL_PREFIXES = ("lb4_", "lb6_")

# The IPv4 dummy address (RFC 7600), for tunnel devices: even where rp_filter is loose (2), the
# kernel takes no IPv4 packet from a device without an IPv4 address (no_addr in fib_frontend.c).
DUMMY = ipaddress.IPv4Address("192.0.0.8")

_OUTER_HEADER = {4: 20, 6: 40}  # bytes of an IP header without options
_TCP_HEADERS = {4: 40, 6: 60}  # with the IP header


@dataclass(frozen=True)
class Service:
    """What counts of a service here. ``backends`` are the servers' own addresses."""

    name: str
    vip: Address
    forwarding: str
    backends: frozenset[Address]


@dataclass(frozen=True)
class Need:
    """What a host has to have. Sysctls are by ``interface/name`` with the value to set."""

    services: tuple[str, ...]
    vips: frozenset[Address]
    tunnels: Mapping[str, Address]  # device name to the address at which it unpacks
    sysctls: Mapping[str, int]
    rules: frozenset[tuple[int, str]]
    routes: Mapping[int, str]


NOTHING = Need((), frozenset(), {}, {}, frozenset(), {4: "", 6: ""})


def services_of(declared: Sequence[Mapping[str, Any]]) -> tuple[Service, ...]:
    """What is needed of the balancer's list of services. Raises Failure for what it cannot be."""
    found = []
    for index, item in enumerate(declared):
        for option in ("name", "vip", "forwarding"):
            if not isinstance(item.get(option), str):
                raise Failure(f"services[{index}] has no {option}")
        where = f"service {item['name']}"
        if item["forwarding"] not in FORWARDING[1:]:
            known = ", ".join(FORWARDING[1:])
            raise Failure(f"{where}: forwarding {item['forwarding']!r} is none of {known}")
        backends = item.get("backends") or []
        found.append(
            Service(
                name=item["name"],
                vip=parse_address(f"{where}: vip", item["vip"]),
                forwarding=item["forwarding"],
                backends=frozenset(
                    parse_address(f"{where}: backend", str(backend.get("address", "")))
                    for backend in backends
                ),
            )
        )
    return tuple(found)


def need_of(services: Iterable[Service], host: Host, devices: bool, mss: bool) -> Need:
    """What this host needs for the services that name one of its addresses."""
    ways = [
        (service, interface, address)
        for service in services
        for address in sorted(service.backends, key=str)
        for interface in [host.holding(address)]
        if interface is not None and address != service.vip
    ]
    ours = [way for way in ways if way[0].forwarding != "nat"]
    packed = [way for way in ours if way[0].forwarding == "ipip"]
    tunnels = {tunnel_name(address): address for _service, _interface, address in packed}
    sysctls: dict[str, int] = {}
    for service, interface, address in ours:
        if service.vip.version == 4:
            sysctls[f"{interface.name}/arp_ignore"] = 1
            sysctls[f"{interface.name}/arp_announce"] = 2
            entry = interface.name if service.forwarding == "dsr" else tunnel_name(address)
            if devices or service.forwarding == "dsr":
                sysctls[f"{entry}/rp_filter"] = 2
    rules: set[tuple[int, str]] = set()
    routes = {4: "", 6: ""}
    for service, interface, address in packed if mss else []:
        version = service.vip.version
        default = host.defaults[version]
        if default:
            size = interface.mtu - _OUTER_HEADER[address.version] - _TCP_HEADERS[version]
            before = routes[version].rpartition(" ")[2]
            size = min(size, int(before)) if before else size
            routes[version] = f"{default.partition(' advmss ')[0]} advmss {size}"
            rules.update((preference, str(service.vip)) for preference in PREFERENCES)
    return Need(
        services=tuple(sorted({service.name for service, _interface, _address in ways})),
        vips=frozenset(service.vip for service, _interface, _address in ours),
        tunnels=tunnels if devices else {},
        sysctls=sysctls,
        rules=frozenset(rules),
        routes=routes,
    )


def tunnel_name(address: Address) -> str:
    """The device that unpacks what is sent to ``address``; a name holds 15 characters."""
    return f"lb{address.version}_{hashlib.sha256(str(address).encode()).hexdigest()[:8]}"


def satisfied(host: Host, name: str) -> bool:
    """Whether the kernel already does what the sysctl is set for.

    It takes the larger value of the interface's and of ``all`` (Documentation/networking/
    ip-sysctl.rst); an interface that is still to be made begins with what ``default`` says.
    """
    _interface, _slash, key = name.partition("/")
    own = host.sysctls.get(name, host.sysctls[f"default/{key}"])
    value = max(own, host.sysctls[f"all/{key}"])
    return value != 1 if key == "rp_filter" else value >= (1 if key == "arp_ignore" else 2)


def words_of(address: Address, device: str = "lo") -> list[str]:
    """The address as ``ip address`` takes it: on ``device``, and never a source by itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return [f"{address}/32", "dev", device, "scope", "host"]
    return [f"{address}/128", "dev", device, "nodad", "preferred_lft", "0"]
