# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets, built and checked by scapy, which shares nothing with the data plane."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from network import CLIENT_MAC, IN_MAC, Host
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
CLIENTS = {4: "198.51.100.7", 6: "2001:db8:c::7"}
PORT = 80
FAMILIES = (4, 6)
PROTOCOLS = {"tcp": TCP, "udp": UDP}
NUMBERS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


def ip_layer(family: int, source: str, destination: str, ttl: int = 64, **fields: object) -> Packet:
    if family == 4:
        return IP(src=source, dst=destination, ttl=ttl, id=0x1234, **fields)
    return IPv6(src=source, dst=destination, hlim=ttl, fl=0x54321, **fields)


@dataclass(frozen=True)
class Client:
    """Someone who talks to a VIP."""

    family: int
    address: str
    port: int = 40000

    def to(
        self,
        protocol: str = "tcp",
        payload: bytes = b"",
        vip: str = "",
        port: int = PORT,
        ttl: int = 64,
        **fields: object,
    ) -> Packet:
        """A frame of this client, as its router hands it to the balancer.

        `fields`: of the transport header; a TCP packet is an acknowledgement unless said otherwise.
        """
        if protocol == "tcp":
            fields = {"flags": "A", "seq": 1000, "ack": 2000, **fields}
        transport = PROTOCOLS[protocol](sport=self.port, dport=port, **fields)
        network = ip_layer(self.family, self.address, vip or VIPS[self.family], ttl)
        return from_router(network / transport / Raw(payload))


def client(family: int, number: int = 0, port: int = 40000) -> Client:
    return Client(family, CLIENTS[family][:-1] + str(7 + number), port)


def from_router(packet: Packet) -> Packet:
    return Ether(src=CLIENT_MAC, dst=IN_MAC) / packet


def family_of(packet: Packet) -> int:
    return 4 if IP in packet else 6


def parsed(frame: bytes) -> Packet:
    return Ether(frame)


def aged(layer: Packet) -> Packet:
    """An IP packet with one hop less to live; its header's checksum is scapy's."""
    made = layer.copy()
    if isinstance(made, IP):
        made.ttl -= 1
        made.chksum = None
    else:
        made.hlim -= 1
    return made


def sent_to(host: Host, packet: Packet) -> bytes:
    """An IP packet in a frame to the host's next hop."""
    return bytes(Ether(src=host.source_mac, dst=host.mac) / packet)


def network_layer(packet: Packet) -> Packet:
    return packet[Ether].payload


def sum16(data: bytes) -> int:
    """The Internet checksum's sum, folded: 0xFFFF over data that includes a right checksum."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def transport_sum(frame: bytes) -> int:
    """The same over the transport header, its data and the pseudo header (RFC 768, 793, 8200)."""
    if frame[12:14] == b"\x08\x00":
        header = 4 * (frame[14] & 15)
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        addresses, protocol, start = frame[26:34], frame[23], 14 + header
        if protocol == NUMBERS["icmp"]:
            return sum16(frame[start:end])
    else:
        end = 54 + struct.unpack_from("!H", frame, 18)[0]
        addresses, protocol, start = frame[22:54], frame[20], 54
        while protocol in (0, 43, 44, 60):
            size = 8 if protocol == 44 else 8 * frame[start + 1] + 8
            protocol, start = frame[start], start + size
    segment = frame[start:end]
    return sum16(addresses + struct.pack("!II", len(segment), protocol) + segment)


def hexdump(data: bytes) -> str:
    lines = [data[at : at + 16] for at in range(0, len(data), 16)]
    return "\n".join(f"  {16 * at:04x}  {line.hex(' ')}" for at, line in enumerate(lines))


def same(got: bytes, expected: bytes) -> None:
    """Byte for byte; else both are shown, and where they part."""
    if got == expected:
        return
    parts = [at for at, (a, b) in enumerate(zip(got, expected)) if a != b]
    where = f"differ at {parts[:12]}" if parts else "differ in length"
    raise AssertionError(
        f"{where}: got {len(got)} bytes\n{hexdump(got)}\n{parsed(got)!r}\n"
        f"expected {len(expected)} bytes\n{hexdump(expected)}\n{parsed(expected)!r}"
    )
