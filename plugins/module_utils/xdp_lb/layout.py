# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The load balancer's map contents as Python values: bpf/xdp_lb/layout.h, struct for struct.

Numbers are packed in native byte order, ports and addresses in network byte order, as layout.h
says; in Python a port is a plain number and an address an object of ``ipaddress``.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union

from ..bpf.info import MapInfo
from ..resource.errors import Failure

LAYOUT = 1
RING_SLOTS = 65537

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

# enum forwarding
FORWARDING = ("none", "nat", "dsr", "ipip")
# enum service_flag
SERVICE_BY_SOURCE = 1
# enum backend_state
STATES = ("active", "draining", "disabled")
# enum backend_health
HEALTH = ("unknown", "up", "down")
# enum flow_state
FLOW_OPENING, FLOW_OPEN, FLOW_CLIENT_FIN, FLOW_BACKEND_FIN, FLOW_RESET = 0, 1, 2, 4, 8
FLOW_CLAIMED = 16
# enum settings_flag
SETTINGS_ANY_PORT, SETTINGS_NAT4, SETTINGS_NAT6, SETTINGS_FILTER = 1, 2, 4, 8
# enum reason
REASONS = (
    "pass_foreign",
    "pass_not_configured",
    "pass_options",
    "pass_fragment",
    "pass_icmp",
    "pass_malformed",
    "drop_no_backend",
    "drop_no_route",
    "drop_no_neighbour",
    "drop_ttl",
    "drop_no_connection",
    "drop_no_port",
    "drop_no_room",
    "echo_replied",
    "icmp_forwarded",
    "too_big_sent",
    "drop_not_forwarding",
)

KEY = struct.Struct("=I")  # of every array: an id, or 0
RING_BYTES = 4 * RING_SLOTS + 4  # struct ring: pairs of u16, backend and previous; then moved

_SERVICE4 = struct.Struct("=4s2sBx")
_SERVICE6 = struct.Struct("=16s2sBx")
_SERVICE = struct.Struct("=IBBH")
_SERVICE_NAME = struct.Struct("=64s")
_BACKEND = struct.Struct("=16sI2sBBB3xI")
FLOW = struct.Struct("=16s2s2sI")
FLOW_ENTRY = struct.Struct("=IIIB3x")
NAT_REPLY = struct.Struct("=16s2s2sBBH")
NAT_ENTRY = struct.Struct("=III2sBB")
NAT_ORIGIN = struct.Struct("=24s16sI")
_SETTINGS = struct.Struct("=II16s16sHHII4xI")
_BACKEND_COUNTERS = struct.Struct("=QQQ")
_SERVICE_COUNTERS = struct.Struct("=QQQ")
_REASON_BYTES = 8

FILTER_FACTOR = 0x9E3779B97F4A7C15
FILTER_BITS = 65536
_FILTER_BYTES = FILTER_BITS // 8  # struct service_filter
_WORDS4 = struct.Struct("=Q")  # struct service4
_WORDS6 = struct.Struct("=QQI")  # struct service6
_MASK64 = 2**64 - 1

# Every pinned map: type, key and value size. How many entries it has is a site's to choose.
MAPS: dict[str, tuple[str, int, int]] = {
    "services4": ("hash", _SERVICE4.size, _SERVICE.size),
    "services6": ("hash", _SERVICE6.size, _SERVICE.size),
    "service_filter": ("array", KEY.size, _FILTER_BYTES),
    "service_names": ("array", KEY.size, _SERVICE_NAME.size),
    "backends": ("array", KEY.size, _BACKEND.size),
    "rings": ("array_of_maps", KEY.size, KEY.size),
    "settings": ("array", KEY.size, _SETTINGS.size),
    "flows_opening": ("lru_hash", FLOW.size, FLOW_ENTRY.size),
    "flows": ("lru_hash", FLOW.size, FLOW_ENTRY.size),
    "flows_leaving": ("lru_hash", FLOW.size, FLOW_ENTRY.size),
    "nat_opening": ("lru_hash", FLOW.size, NAT_ENTRY.size),
    "nat_flows": ("lru_hash", FLOW.size, NAT_ENTRY.size),
    "nat_replies_opening": ("lru_hash", NAT_REPLY.size, NAT_ORIGIN.size),
    "nat_replies": ("lru_hash", NAT_REPLY.size, NAT_ORIGIN.size),
    "backend_counters": ("percpu_array", KEY.size, _BACKEND_COUNTERS.size),
    "service_counters": ("percpu_array", KEY.size, _SERVICE_COUNTERS.size),
    "reasons": ("percpu_array", KEY.size, _REASON_BYTES),
}


def check(name: str, about: MapInfo) -> None:
    """Refuse a pinned map that has not the shape of this layout. Raises Failure."""
    wanted = MAPS[name]
    found = (about.type, about.key_size, about.value_size)
    if found != wanted:
        raise Failure(
            f"map {name} of the pinned load balancer has {_shape(found)}, layout {LAYOUT} has "
            f"{_shape(wanted)}: another version of the data plane is pinned, and there is no "
            "migration between the two; install the collection that it came with, or take the "
            "balancer away (xdp_lb_state: absent, which ends its connections) and set it up anew"
        )


def check_version(settings: Settings) -> None:
    """Refuse maps that user space of another layout has written. Raises Failure."""
    if settings.layout not in (0, LAYOUT):
        raise Failure(
            f"the pinned load balancer is configured in layout {settings.layout}, this collection "
            f"writes layout {LAYOUT}, and there is no migration between the two; install the "
            "collection that it came with, or take the balancer away (xdp_lb_state: absent, which "
            "ends its connections) and set it up anew"
        )


def _shape(of: tuple[str, int, int]) -> str:
    return f"type {of[0]}, keys of {of[1]} and values of {of[2]} bytes"


def key(number: int) -> bytes:
    """The key of an array's entry: an id, or 0 for the only one."""
    return KEY.pack(number)


def pack_address(address: Address | None) -> bytes:
    """``struct address``: 16 bytes, of which IPv4 uses the first four; zero for none."""
    return address.packed.ljust(16, b"\0") if address else bytes(16)


def unpack_address(raw: bytes, family: int) -> Address | None:
    """The address in a ``struct address``; None for any other family than AF_INET, AF_INET6."""
    if family == socket.AF_INET:
        return ipaddress.IPv4Address(raw[:4])
    return ipaddress.IPv6Address(raw) if family == socket.AF_INET6 else None


def family_of(address: Address | None) -> int:
    """AF_INET, AF_INET6, or 0 for none."""
    if address is None:
        return 0
    return int(socket.AF_INET if address.version == 4 else socket.AF_INET6)


def port_of(raw: bytes) -> int:
    """A port that was in network byte order."""
    return int.from_bytes(raw, "big")


def raw_port(port: int) -> bytes:
    """The port in network byte order."""
    return port.to_bytes(2, "big")


@dataclass(frozen=True)
class ServiceKey:
    """``struct service4`` or ``service6``: by what a packet is known. Port 0 is every port."""

    address: Address
    port: int
    protocol: int  # IPPROTO_*

    @property
    def map_name(self) -> str:
        """The map in which it is a key."""
        return "services4" if self.address.version == 4 else "services6"

    def pack(self) -> bytes:
        """The key's bytes."""
        shape = _SERVICE4 if self.address.version == 4 else _SERVICE6
        return shape.pack(self.address.packed, raw_port(self.port), self.protocol)

    @classmethod
    def unpack(cls, raw: bytes) -> ServiceKey:
        """The key behind the bytes; their number tells the family."""
        if len(raw) == _SERVICE4.size:
            address, port, protocol = _SERVICE4.unpack(raw)
            return cls(ipaddress.IPv4Address(address), port_of(port), protocol)
        address, port, protocol = _SERVICE6.unpack(raw)
        return cls(ipaddress.IPv6Address(address), port_of(port), protocol)


def filter_bit(raw: bytes) -> int:
    """The number of a service key's bit in ``struct service_filter``."""
    words = _WORDS4 if len(raw) == _WORDS4.size else _WORDS6
    product = 0
    for word in words.unpack(raw):
        product = (product + word) * FILTER_FACTOR & _MASK64
    return product >> 48


def pack_filter(keys: Iterable[bytes]) -> bytes:
    """``struct service_filter`` with the bits of these service keys set and no other."""
    bits = [0] * (FILTER_BITS // 64)
    for raw in keys:
        number = filter_bit(raw)
        bits[number // 64] |= 1 << number % 64
    return struct.pack(f"={len(bits)}Q", *bits)


@dataclass(frozen=True)
class Service:
    """``struct service``. ``id`` is 0 for a bare address."""

    id: int
    forwarding: int  # index in FORWARDING
    flags: int = 0

    def pack(self) -> bytes:
        """The value's bytes."""
        return _SERVICE.pack(self.id, self.forwarding, self.flags, 0)

    @classmethod
    def unpack(cls, raw: bytes) -> Service:
        """The value behind the bytes."""
        return cls(*_SERVICE.unpack(raw)[:3])


def pack_service_name(name: str) -> bytes:
    """``struct service_name``: at most 63 bytes of UTF-8. Raises ValueError for more."""
    raw = name.encode()
    if len(raw) >= _SERVICE_NAME.size:
        raise ValueError(f"{name!r} is longer than {_SERVICE_NAME.size - 1} bytes")
    return _SERVICE_NAME.pack(raw)


def unpack_service_name(raw: bytes) -> str:
    """The name, "" where there is none."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")


@dataclass(frozen=True)
class Backend:
    """``struct backend``. Without an address the id is free."""

    address: Address | None
    service: int = 0  # id
    port: int = 0  # 0: as the client sent it
    state: int = 0  # index in STATES
    health: int = 0  # index in HEALTH
    weight: int = 0

    def pack(self) -> bytes:
        """The value's bytes."""
        return _BACKEND.pack(
            pack_address(self.address),
            self.service,
            raw_port(self.port),
            family_of(self.address),
            self.state,
            self.health,
            self.weight,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Backend:
        """The value behind the bytes."""
        address, service, port, family, state, health, weight = _BACKEND.unpack(raw)
        found = unpack_address(address, family)
        return cls(found, service, port_of(port), state, health, weight)


@dataclass(frozen=True)
class Settings:
    """``struct settings``: the whole balancer's. Times are in seconds; 0 layout: none yet."""

    layout: int = 0
    flags: int = 0
    source4: ipaddress.IPv4Address | None = None
    source6: ipaddress.IPv6Address | None = None
    nat_port_first: int = 0
    nat_port_last: int = 0
    idle_tcp: int = 0
    idle_udp: int = 0
    udp_grace: int = 0

    def pack(self) -> bytes:
        """The value's bytes."""
        return _SETTINGS.pack(
            self.layout,
            self.flags,
            pack_address(self.source4),
            pack_address(self.source6),
            self.nat_port_first,
            self.nat_port_last,
            self.idle_tcp,
            self.idle_udp,
            self.udp_grace,
        )

    @classmethod
    def unpack(cls, raw: bytes) -> Settings:
        """The value behind the bytes."""
        layout, flags, source4, source6, *numbers = _SETTINGS.unpack(raw)
        return cls(
            layout,
            flags,
            ipaddress.IPv4Address(source4[:4]) if any(source4) else None,
            ipaddress.IPv6Address(source6) if any(source6) else None,
            *numbers,
        )


@dataclass(frozen=True)
class BackendCounters:
    """``struct backend_counters``, one CPU's or the sum of all."""

    packets: int
    bytes: int
    connections: int


@dataclass(frozen=True)
class ServiceCounters:
    """``struct service_counters``, one CPU's or the sum of all."""

    dropped: int
    moved_hits: int
    moved_misses: int


def sum_backend_counters(raw: bytes) -> BackendCounters:
    """Add up the values of all CPUs, as a lookup in a per-CPU array returns them."""
    return BackendCounters(*map(sum, zip(*_BACKEND_COUNTERS.iter_unpack(raw))))


def sum_service_counters(raw: bytes) -> ServiceCounters:
    """Add up the values of all CPUs, as a lookup in a per-CPU array returns them."""
    return ServiceCounters(*map(sum, zip(*_SERVICE_COUNTERS.iter_unpack(raw))))


def sum_reason(raw: bytes) -> int:
    """Add up the values of all CPUs of one entry of ``reasons``."""
    return sum(struct.unpack(f"={len(raw) // _REASON_BYTES}Q", raw))


def coarse(monotonic_ns: int) -> int:
    """A time as ``seen`` and ``moved`` hold it: CLOCK_MONOTONIC >> 30, 32 bits of about seconds."""
    return (monotonic_ns >> 30) & 0xFFFFFFFF
