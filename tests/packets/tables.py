# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of the data plane's maps, written from bpf/xdp_lb/layout.h for these tests alone.

The collection's own encoding is what other tests check; here nothing may be wrong in the same way.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

LAYOUT = 1
RING_SLOTS = 65537

NAT, DSR, IPIP = 1, 2, 3
BY_SOURCE = 1
ACTIVE, DRAINING, DISABLED = 0, 1, 2
UNKNOWN, UP, DOWN = 0, 1, 2
ANY_PORT, NAT4, NAT6, FILTER = 1, 2, 4, 8
FILTER_FACTOR = 0x9E3779B97F4A7C15
OPENING, OPEN, CLIENT_FIN, BACKEND_FIN, RESET, CLAIMED = 0, 1, 2, 4, 8, 16

TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
ICMP, ICMPV6 = socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6

_LAYOUT_H = Path(__file__).resolve().parents[2] / "bpf/xdp_lb/layout.h"


def _reasons() -> list[str]:
    """The names of enum reason, in their order."""
    text = re.sub(r"/\*.*?\*/", "", _LAYOUT_H.read_text(), flags=re.DOTALL)
    body = re.search(r"enum reason \{(.*?)\}", text, re.DOTALL)
    assert body
    return re.findall(r"\b(?:PASS_|DROP_|ECHO_|ICMP_|TOO_)\w+", body.group(1))


REASONS = _reasons()


def address(text: str) -> bytes:
    """struct address: 16 bytes, IPv4 in the first four."""
    return ipaddress.ip_address(text).packed.ljust(16, b"\0")


def is_ipv4(text: str) -> bool:
    return "." in text


def service_key(vip: str, port: int, protocol: int) -> bytes:
    """struct service4 or service6."""
    return ipaddress.ip_address(vip).packed + struct.pack("!HBx", port, protocol)


def filter_bit(key: bytes) -> int:
    """A service key's bit of struct service_filter. The words are in this machine's byte order."""
    if len(key) == 8:
        hashed = int.from_bytes(key, sys.byteorder) * FILTER_FACTOR
    else:
        first, second, rest = struct.unpack("=QQI", key)
        hashed = (first * FILTER_FACTOR + second) * FILTER_FACTOR + rest
        hashed *= FILTER_FACTOR
    number = (hashed & (1 << 64) - 1) >> 48
    # Bits are numbered within words of 64; here they are looked for within bytes.
    return number if sys.byteorder == "little" else number ^ 0x38


def service(number: int, forwarding: int, flags: int = 0) -> bytes:
    return struct.pack("=IBBH", number, forwarding, flags, 0)


def backend(
    where: str,
    service_id: int,
    port: int = 0,
    state: int = ACTIVE,
    health: int = UNKNOWN,
    weight: int = 1,
) -> bytes:
    family = socket.AF_INET if is_ipv4(where) else socket.AF_INET6
    middle = struct.pack("!H", port) + bytes((family, state, health)) + bytes(3)
    return address(where) + struct.pack("=I", service_id) + middle + struct.pack("=I", weight)


def slot(backend_id: int, previous: int = 0) -> bytes:
    return struct.pack("=HH", backend_id, previous)


@dataclass(frozen=True)
class Settings:
    """struct settings."""

    layout: int = LAYOUT
    flags: int = ANY_PORT | NAT4 | NAT6 | FILTER
    source4: str = "192.0.2.1"
    source6: str = "2001:db8::1"
    nat_ports: tuple[int, int] = (1024, 32767)
    idle_tcp: int = 3600
    idle_udp: int = 60
    udp_grace: int = 0

    def packed(self) -> bytes:
        return (
            struct.pack("=II", self.layout, self.flags)
            + address(self.source4)
            + address(self.source6)
            + struct.pack("=HH", *self.nat_ports)
            + struct.pack("=4I", self.idle_tcp, self.idle_udp, 0, self.udp_grace)
        )


def flow_key(client: str, client_port: int, service_port: int, service_id: int) -> bytes:
    ports = struct.pack("!HH", client_port, service_port)
    return address(client) + ports + struct.pack("=I", service_id)


@dataclass(frozen=True)
class FlowEntry:
    """struct flow_entry."""

    backend: int
    slot: int
    seen: int
    state: int

    @classmethod
    def of(cls, raw: bytes) -> FlowEntry:
        return cls(*struct.unpack("=IIIB3x", raw))

    def packed(self) -> bytes:
        return struct.pack("=IIIB3x", self.backend, self.slot, self.seen, self.state)


@dataclass(frozen=True)
class NatEntry:
    """struct nat_entry; the port in host byte order."""

    backend: int
    seen: int
    server_sequence: int
    port: int
    state: int
    protocol: int

    @classmethod
    def of(cls, raw: bytes) -> NatEntry:
        head = struct.unpack_from("=III", raw)
        return cls(*head, *struct.unpack_from("!HBB", raw, 12))


def nat_reply_key(backend_address: str, backend_port: int, nat_port: int, protocol: int) -> bytes:
    family = socket.AF_INET if is_ipv4(backend_address) else socket.AF_INET6
    ports = struct.pack("!HH", backend_port, nat_port)
    return address(backend_address) + ports + struct.pack("=BBH", protocol, family, 0)
