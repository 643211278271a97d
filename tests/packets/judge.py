# SPDX-License-Identifier: GPL-3.0-or-later
"""A second opinion on packets that nobody would send: may one be touched, and is what comes out right?

Written from the RFCs alone, and never more lenient than the data plane has to be.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Container, Mapping
from dataclasses import dataclass

from packets import NUMBERS, sum16

TCP, UDP, ICMP, ICMPV6 = (NUMBERS[name] for name in ("tcp", "udp", "icmp", "icmpv6"))
EXTENSIONS = (0, 43, 44, 60)
ECHO = {4: 8, 6: 128}
# Unreachable, time exceeded, parameter problem; ICMPv6 errors of unknown types are errors: RFC 4443.
ERRORS: dict[int, Container[int]] = {4: (3, 11, 12), 6: range(1, 128)}


@dataclass(frozen=True)
class Read:
    """A packet that is whole: where its headers are, as offsets into the frame."""

    family: int
    source: bytes
    destination: bytes
    protocol: int
    transport: int
    end: int
    ttl: int


def read(frame: bytes) -> Read | None:
    """Its headers, or None for anything that a balancer has no business with."""
    if len(frame) < 34 or frame[0] & 1:
        return None
    if frame[12:14] == b"\x08\x00":
        length = int.from_bytes(frame[16:18], "big")
        if frame[14] != 0x45 or not 20 <= length <= len(frame) - 14:
            return None
        if int.from_bytes(frame[20:22], "big") & 0x3FFF:
            return None
        found = Read(4, frame[26:30], frame[30:34], frame[23], 34, 14 + length, frame[22])
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 54 and frame[14] >> 4 == 6:
        end = 54 + int.from_bytes(frame[18:20], "big")
        if end > len(frame):
            return None
        walked = _extensions(frame, end)
        if walked is None:
            return None
        found = Read(6, frame[22:38], frame[38:54], walked[0], walked[1], end, frame[21])
    else:
        return None
    return found if _transport_is_whole(frame, found) else None


def _extensions(frame: bytes, end: int) -> tuple[int, int] | None:
    protocol, at = frame[20], 54
    while protocol in EXTENSIONS:
        if at + 8 > end:
            return None
        if protocol == 44 and int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF9:
            return None
        if protocol == 43 and frame[at + 3]:
            return None
        size = 8 if protocol == 44 else 8 * frame[at + 1] + 8
        protocol, at = frame[at], at + size
    return protocol, at


def _transport_is_whole(frame: bytes, found: Read) -> bool:
    size = found.end - found.transport
    if found.protocol == TCP:
        return size >= 20 and 20 <= 4 * (frame[found.transport + 12] >> 4) <= size
    if found.protocol == UDP:
        return size >= 8 and 8 <= _word(frame, found.transport + 4) <= size
    return found.protocol == {4: ICMP, 6: ICMPV6}[found.family] and size >= 8


def _word(frame: bytes, at: int) -> int:
    value: int = struct.unpack_from("!H", frame, at)[0]
    return value


@dataclass(frozen=True)
class Site:
    """What is declared: services by address (port 0: any), and the addresses of nat with its ports."""

    services: Mapping[bytes, frozenset[tuple[int, int]]]
    own: frozenset[bytes]
    nat_ports: tuple[int, int]

    def may_touch(self, frame: bytes) -> bool:
        """Whether the balancer may do anything but pass it on."""
        found = read(frame)
        if not found:
            return False
        if found.protocol in (ICMP, ICMPV6):
            kind = frame[found.transport]
            if found.destination in self.own:
                return kind in ERRORS[found.family]
            asks = kind == ECHO[found.family] or kind in ERRORS[found.family]
            return asks and found.destination in self.services
        port = _word(frame, found.transport + 2)
        if found.destination in self.own:
            return self.nat_ports[0] <= port <= self.nat_ports[1]
        declared = self.services.get(found.destination, frozenset())
        return bool(declared & {(found.protocol, port), (found.protocol, 0)})


def address(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


def equal(one: int, other: int) -> bool:
    """Of two checksum sums; 0 and 0xFFFF are the same number to them."""
    return one % 0xFFFF == other % 0xFFFF


def _transport_sum(frame: bytes, found: Read) -> int:
    segment = frame[found.transport : found.end]
    if found.protocol == ICMP:
        return sum16(segment)
    pseudo = found.source + found.destination + struct.pack("!II", len(segment), found.protocol)
    return sum16(pseudo + segment)


def what_is_wrong(frame: bytes, out: bytes) -> str:
    """With a packet that was sent; empty if nothing is.

    A checksum that was right has to be right, and one that was wrong just as wrong: a packet that was
    damaged on its way must not arrive as a good one.
    """
    before, after = read(frame), read_any(out)
    if not before:
        return "sent, although it could not be read"
    if not after:
        return "cannot be read any more"
    if after.protocol in (4, 41) and before.protocol not in (4, 41):
        if after.family == 4 and sum16(out[14:34]) != 0xFFFF:
            return "outer header checksum"
        inner = (
            out[:12] + {4: b"\x08\x00", 41: b"\x86\xdd"}[after.protocol] + out[after.transport :]
        )
        return what_is_wrong(frame, inner)
    if after.protocol in (ICMP, ICMPV6) and before.protocol in (TCP, UDP):
        return _wrong_message(out, after)
    return _wrong_forward(frame, before, out, after)


def read_any(frame: bytes) -> Read | None:
    """The same for what came out, which may be a tunnel."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 34 and frame[23] in (4, 41):
        end = 14 + int.from_bytes(frame[16:18], "big")
        if frame[14] != 0x45 or end > len(frame):
            return None
        return Read(4, frame[26:30], frame[30:34], frame[23], 34, end, frame[22])
    if frame[12:14] == b"\x86\xdd" and len(frame) >= 54 and frame[20] in (4, 41):
        end = 54 + int.from_bytes(frame[18:20], "big")
        if end > len(frame):
            return None
        return Read(6, frame[22:38], frame[38:54], frame[20], 54, end, frame[21])
    return read(frame)


def _wrong_message(out: bytes, after: Read) -> str:
    """A message of the balancer's own."""
    if after.family == 4 and sum16(out[14:34]) != 0xFFFF:
        return "header checksum of a message"
    return "" if _transport_sum(out, after) == 0xFFFF else "checksum of a message"


def _wrong_forward(frame: bytes, before: Read, out: bytes, after: Read) -> str:
    if (before.family, before.protocol) != (after.family, after.protocol):
        return "another protocol"
    if len(frame) != len(out) or before.end != after.end:
        return "another length"
    is_echo = before.protocol in (ICMP, ICMPV6) and frame[before.transport] == ECHO[before.family]
    if not is_echo and after.ttl != before.ttl - 1:
        return f"time to live {before.ttl} became {after.ttl}"
    if before.family == 4 and not equal(sum16(frame[14:34]), sum16(out[14:34])):
        return "header checksum"
    if before.protocol == UDP and _word(frame, before.transport + 6) == 0:
        return "" if _word(out, after.transport + 6) == 0 else "UDP checksum out of none"
    if before.protocol == UDP and _word(out, after.transport + 6) == 0:
        return "UDP checksum became none"
    if not equal(_transport_sum(frame, before), _transport_sum(out, after)):
        return "transport checksum"
    return ""
