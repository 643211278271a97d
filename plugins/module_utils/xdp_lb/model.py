# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The services of one balancer, as an operator declares them.

A service is known by its name, a backend by its service, address and port. What is wrong with a
declaration by itself is refused here; what does not fit the host is refused by ``services``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..resource.errors import Failure
from ..resource.interface import check_netns
from ..resource.paths import pin_path
from . import health_config
from .layout import Address

PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
ANY_PORT = 0
WEIGHT_MAX = 65535

_PORT_MAX = 65535
_SECONDS_MAX = 2**31 - 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,62}")  # struct service_name holds 63 bytes


@dataclass(frozen=True)
class Backend:
    """A server of one service. ``port`` 0: the port to which the client sent."""

    address: Address
    port: int
    weight: int
    state: str

    @property
    def identity(self) -> tuple[Address, int]:
        """What it is known by within its service."""
        return self.address, self.port

    def __str__(self) -> str:
        return endpoint(self.address, self.port) if self.port else str(self.address)


@dataclass(frozen=True)
class Service:
    """An address, a port (0: every port) and a protocol, and who serves them."""

    name: str
    vip: Address
    port: int
    protocol: str
    forwarding: str
    by_source: bool
    checked: bool  # health checks say which of its backends are up
    backends: tuple[Backend, ...]

    @property
    def place(self) -> str:
        """What clients connect to, for people."""
        return f"{endpoint(self.vip, self.port)}/{self.protocol}"


@dataclass
class Memory:
    """What one run remembers from its first look at the maps: slots that it moves, by service."""

    moved: dict[str, int] | None = None


@dataclass(frozen=True)
class Desired:
    """What one balancer is to do. Sources are the addresses from which it sends by itself."""

    state: str
    pin_dir: str
    netns: str
    services: tuple[Service, ...]
    source4: ipaddress.IPv4Address | None
    source6: ipaddress.IPv6Address | None
    nat_ports: tuple[int, int]
    idle_tcp: int  # seconds, as the next two
    idle_udp: int
    udp_grace: int
    memory: Memory = field(default_factory=Memory, compare=False)

    def source(self, version: int) -> Address | None:
        """The source address of IP version 4 or 6."""
        return self.source4 if version == 4 else self.source6


def endpoint(address: Address, port: int) -> str:
    """Such as ``192.0.2.1:80``, ``[2001:db8::1]:80``, ``192.0.2.1:any``."""
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port or 'any'}"


def desired(params: Mapping[str, Any]) -> Desired:
    """Check the module's parameters, but not yet against the host. Raises Failure."""
    idle = params.get("idle_timeout") or {}
    sources = params.get("sources") or {}
    services: tuple[Service, ...] = ()
    if params["state"] == "present":
        declared = enumerate(params.get("services") or [])
        services = tuple(_service(f"services[{index}]", item) for index, item in declared)
    found = Desired(
        state=params["state"],
        pin_dir=pin_path(params["pin_dir"]),
        netns=check_netns(params.get("netns") or ""),
        services=services,
        source4=_source(sources, 4),
        source6=_source(sources, 6),
        nat_ports=_nat_ports(params.get("nat_ports") or {}),
        idle_tcp=_seconds("idle_timeout.tcp", idle.get("tcp"), 7440),
        idle_udp=_seconds("idle_timeout.udp", idle.get("udp"), 300),
        udp_grace=_seconds("udp_grace", params.get("udp_grace"), 60),
    )
    _check_together(found)
    return found


def _number(where: str, value: Any, default: int, low: int, high: int, what: str) -> int:
    number = default if value is None else int(value)
    if not low <= number <= high:
        raise Failure(f"{where}: {number} is out of range: {what} are {low} to {high}")
    return number


def _seconds(where: str, value: Any, default: int) -> int:
    return _number(where, value, default, 1, _SECONDS_MAX, "seconds")


def _nat_ports(declared: Mapping[str, Any]) -> tuple[int, int]:
    first = _number("nat_ports.first", declared.get("first"), 1024, 1, _PORT_MAX, "ports")
    last = _number("nat_ports.last", declared.get("last"), 32767, 1, _PORT_MAX, "ports")
    if first > last:
        raise Failure(f"nat_ports: the first port, {first}, comes after the last, {last}")
    return first, last


def _source(sources: Mapping[str, Any], version: int) -> Any:
    where, text = f"sources.ipv{version}", sources.get(f"ipv{version}")
    if not text:
        return None
    address = parse_address(where, text)
    if address.version != version:
        raise Failure(f"{where}: {address} is an IPv{address.version} address")
    return address


def parse_address(where: str, text: str) -> Address:
    """A host's address. Raises Failure for what is none, or what no server can have."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise Failure(
            f"{where}: {text!r} is no IPv4 or IPv6 address; write it without port, prefix length "
            "or name"
        ) from error
    kind = _useless(address)
    if kind:
        raise Failure(f"{where}: {text} is {kind} address, which packets cannot be balanced to")
    return address


def _useless(address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_link_local:
            return "a link-local"
        if address.ipv4_mapped:
            return "an IPv4-mapped"
    elif address == ipaddress.IPv4Address(0xFFFFFFFF):
        return "the broadcast"
    if address.is_unspecified:
        return "the unspecified"
    if address.is_loopback:
        return "a loopback"
    return "a multicast" if address.is_multicast else ""


def _service(where: str, declared: Mapping[str, Any]) -> Service:
    name = declared["name"]
    if not _NAME.fullmatch(name):
        raise Failure(
            f"{where}.name: {name!r} is no name: at most 63 letters, digits and . _ : -, beginning "
            "with a letter or digit"
        )
    where = f"service {name}"
    forwarding = declared["forwarding"]
    vip = parse_address(f"{where}: vip", declared["vip"])
    port = _port(f"{where}: port", declared["port"], "any")
    if declared.get("health_check"):
        health_config.check(declared["health_check"], name)
    found = Service(
        name=name,
        vip=vip,
        port=port,
        protocol=declared["protocol"],
        forwarding=forwarding,
        by_source=declared.get("affinity") == "source",
        checked=bool(declared.get("health_check")),
        backends=tuple(
            _backend(where, item, forwarding, port) for item in declared.get("backends") or []
        ),
    )
    _check_backends(where, found)
    return found


def _port(where: str, value: Any, word: str) -> int:
    text = str(value)
    if text == word:
        return ANY_PORT
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _PORT_MAX):
        choice = f", or {word}" if word else ""
        raise Failure(f"{where}: {text!r} is no port: a number from 1 to {_PORT_MAX}{choice}")
    return int(text)


def _backend(service: str, declared: Mapping[str, Any], forwarding: str, port: int) -> Backend:
    address = parse_address(f"{service}: backend", declared["address"])
    where = f"{service}: backend {address}"
    own = declared.get("port")
    own_port = ANY_PORT if own is None else _port(f"{where}: port", own, "")
    if own_port == port:
        own_port = ANY_PORT
    elif own_port and forwarding != "nat":
        raise Failure(
            f"{where}: {forwarding} leaves the port as the client sent it, so the backend cannot "
            f"listen on {own_port}; remove its port, or use forwarding: nat"
        )
    weight = _number(f"{where}: weight", declared.get("weight"), 1, 0, WEIGHT_MAX, "weights")
    state = declared.get("state") or "active"
    if weight == 0 and state == "active":
        state = "draining"
    return Backend(address, own_port, weight, state)


def _check_backends(where: str, service: Service) -> None:
    seen = set()
    for backend in service.backends:
        if backend.identity in seen:
            raise Failure(f"{where}: backend {backend} is declared twice")
        seen.add(backend.identity)
        _check_families(where, service, backend.address)
    if not service.backends:
        raise Failure(f"{where} has no backends; to stop serving it, remove it from services")
    if all(backend.state == "disabled" for backend in service.backends):
        raise Failure(
            f"{where}: all backends are disabled, so every packet to {service.place} would be "
            "dropped; leave one active or draining, or remove the service from services"
        )


def _check_families(where: str, service: Service, address: Address) -> None:
    inner, outer = service.vip.version, address.version
    if inner == outer or (service.forwarding == "ipip" and outer == 6):
        return
    families = f"{where}: vip {service.vip} is IPv{inner} and backend {address} is IPv{outer}"
    if service.forwarding == "ipip":
        raise Failure(
            f"{families}; ipip carries IPv4 in IPv4, IPv6 in IPv6 and IPv4 in IPv6, but not IPv6 "
            "in IPv4: give the backend's IPv6 address"
        )
    raise Failure(
        f"{families}; {service.forwarding} needs one family for both: give the backend's "
        f"IPv{inner} address, or use forwarding: ipip where that can mix them (IPv4 in IPv6)"
    )


def _check_together(found: Desired) -> None:
    """What the services must not have in common, and what they need beyond themselves."""
    names: dict[str, Service] = {}
    places: dict[str, Service] = {}
    for service in found.services:
        if service.name in names:
            raise Failure(f"two services have the name {service.name}; each needs its own")
        names[service.name] = service
        other = places.setdefault(service.place, service)
        if other is not service:
            raise Failure(
                f"services {other.name} and {service.name} both have {service.place}; a packet can "
                "belong to one only: change the vip, port or protocol of one"
            )
    vips = {service.vip: service for service in found.services}
    for service in found.services:
        _check_sources(found, service)
        for backend in service.backends:
            if backend.address in vips:
                raise Failure(
                    f"service {service.name}: backend {backend} is the vip of service "
                    f"{vips[backend.address].name}; packets would go round in a circle: give the "
                    "server's own address"
                )
    _check_nat_ports(found)


def _check_sources(found: Desired, service: Service) -> None:
    if service.forwarding == "dsr":
        return
    for version in sorted({backend.address.version for backend in service.backends}):
        if found.source(version) is None:
            use = "encapsulates" if service.forwarding == "ipip" else "translates"
            raise Failure(
                f"service {service.name}: {service.forwarding} {use} with a source address of the "
                f"balancer, and there is none for IPv{version}: set sources.ipv{version} "
                "(xdp_lb_sources of the role)"
            )


def _check_nat_ports(found: Desired) -> None:
    """A service on a source address must not take the ports to which backends answer."""
    first, last = found.nat_ports
    nat = {service.vip.version for service in found.services if service.forwarding == "nat"}
    for service in found.services:
        version = service.vip.version
        if version not in nat or service.vip != found.source(version):
            continue
        if service.port == ANY_PORT or first <= service.port <= last:
            raise Failure(
                f"service {service.name}: {service.place} is also where backends answer nat "
                f"(sources.ipv{version}, nat_ports {first} to {last}); set other nat_ports, or "
                "another source"
            )
