# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames made by hand: what no well-behaved socket sends."""

from __future__ import annotations

import errno
import ipaddress
import json
import random
import socket
import struct
import time
from collections.abc import Iterable, Iterator

from clients import checksum
from topology import UNANSWERED, UNANSWERED6, Node, Topology

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
SYN = 0x02


def router_mac(network: Topology, client: Node) -> bytes:
    """Where a client's frames go."""
    shown = json.loads(network.router.run("ip", "-j", "link", "show", "dev", client.name))
    return bytes.fromhex(str(shown[0]["address"]).replace(":", ""))


def ethernet(network: Topology, client: Node, packet: bytes) -> bytes:
    kind = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
    source = bytes.fromhex(client.mac.replace(":", ""))
    return router_mac(network, client) + source + struct.pack("!H", kind) + packet


def ip_packet(source: str, destination: str, protocol: int, body: bytes, ttl: int = 64) -> bytes:
    """An IPv4 or IPv6 packet around a transport header whose checksum is right already."""
    here, there = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if here.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, ttl)
        return head + here.packed + there.packed + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, ttl, protocol, 0)
    head += here.packed + there.packed
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def pseudo(source: bytes, destination: bytes, protocol: int, length: int) -> bytes:
    """What a transport checksum covers besides its segment (RFC 9293, RFC 8200)."""
    if len(source) == 4:
        return source + destination + struct.pack("!BBH", 0, protocol, length)
    return source + destination + struct.pack("!II", length, protocol)


def tcp_segment(source: str, destination: str, ports: tuple[int, int], sequence: int) -> bytes:
    """A SYN, with nothing but its header."""
    addresses = [ipaddress.ip_address(each).packed for each in (source, destination)]
    segment = struct.pack("!HHIIBBHHH", *ports, sequence, 0, 5 << 4, SYN, 65535, 0, 0)
    total = checksum(pseudo(*addresses, TCP, len(segment)) + segment)
    return segment[:16] + struct.pack("!H", total) + segment[18:]


def datagram(
    network: Topology, client: Node, destination: str, data: bytes, spoilt: bool = False
) -> bytes:
    """A frame with a UDP datagram for port 53; `spoilt` makes its checksum wrong."""
    there = ipaddress.ip_address(destination)
    source = client.address(there.version)
    head = struct.pack("!HHHH", 20000, 53, 8 + len(data), 0)
    addresses = ipaddress.ip_address(source).packed, there.packed
    total = checksum(pseudo(*addresses, UDP, 8 + len(data)) + head + data) ^ (
        0x0101 if spoilt else 0
    )
    body = head[:6] + struct.pack("!H", total or 0xFFFF) + data
    return ethernet(network, client, ip_packet(source, destination, UDP, body))


def transport_checksum(packet: bytes) -> int:
    """0 when the TCP or UDP checksum of an IPv4 packet is right."""
    start = (packet[0] & 15) * 4
    body = packet[start:]
    return checksum(pseudo(packet[12:16], packet[16:20], packet[9], len(body)) + body)


def syns(network: Topology, client: Node, vip: str, port: int, seed: int = 1) -> Iterator[bytes]:
    """Endless SYNs from random addresses that nobody has, all different."""
    numbers = random.Random(seed)
    six = ":" in vip
    base = ipaddress.ip_network(UNANSWERED6 if six else UNANSWERED)
    first = str(base.network_address)
    frame = bytearray(ethernet(network, client, ip_packet(first, vip, TCP, bytes(20))))
    source, transport = (14 + 8, 14 + 40) if six else (14 + 12, 14 + 20)
    width = 16 if six else 4
    # the sum over all that does not change; what does is added for each packet
    addresses = bytes(width), ipaddress.ip_address(vip).packed
    fixed = struct.pack("!HHIIBBHHH", 0, port, 0, 0, 5 << 4, SYN, 65535, 0, 0)
    still = checksum(pseudo(*addresses, TCP, 20) + fixed) ^ 0xFFFF
    still_ip = checksum(bytes(frame[14:24]) + bytes(2) + bytes(frame[30:34])) ^ 0xFFFF
    if not six:
        frame[24:26] = bytes(2)
        still_ip = checksum(bytes(frame[14:26]) + bytes(4) + bytes(frame[30:34])) ^ 0xFFFF
    while True:
        host = numbers.getrandbits(17) if not six else numbers.getrandbits(64)
        address = (int(base.network_address) + host).to_bytes(width, "big")
        sport, sequence = numbers.randrange(1024, 65536), numbers.getrandbits(32)
        moving = sum(struct.unpack(f"!{width // 2}H", address))
        frame[source : source + width] = address
        if not six:
            struct.pack_into("!H", frame, 24, fold(still_ip + moving) ^ 0xFFFF)
        total = fold(still + moving + sport + (sequence >> 16) + (sequence & 0xFFFF)) ^ 0xFFFF
        struct.pack_into(
            "!HHIIBBHHH", frame, transport, sport, port, sequence, 0, 5 << 4, SYN, 65535, total, 0
        )
        yield bytes(frame)


def fold(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


PAUSE = 0.0005  # seconds in which the queue at the other end of a wire gets shorter


def send(client: Node, frames: Iterable[bytes], seconds: float = 60.0) -> int:
    """Put frames on a client's wire, as fast as it takes them and at most for so long; returns how many."""
    sent, deadline = 0, time.monotonic() + seconds
    with client.entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        for frame in frames:
            try:
                raw.send(frame)
                sent += 1
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                time.sleep(PAUSE)
            if time.monotonic() > deadline:
                break
    return sent
