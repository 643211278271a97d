# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors as routers send them."""

from __future__ import annotations

import packets
import plane
from packets import PORT, VIPS, Client, from_router, ip_layer
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.packet import Packet, Raw

ROUTERS = {4: "203.0.113.9", 6: "2001:db8:99::9"}
HEADER = {4: 20, 6: 40}
LEAST = {family: size + 8 for family, size in HEADER.items()}  # of a quote: RFC 792

MESSAGES: dict[int, dict[str, Packet]] = {
    4: {
        "too big": ICMP(type=3, code=4, nexthopmtu=1400),
        "host unreachable": ICMP(type=3, code=1),
        "port unreachable": ICMP(type=3, code=3),
        "time exceeded": ICMP(type=11, code=0),
        "parameter problem": ICMP(type=12, code=0),
    },
    6: {
        "too big": ICMPv6PacketTooBig(mtu=1400),
        "unreachable": ICMPv6DestUnreach(code=3),
        "port unreachable": ICMPv6DestUnreach(code=4),
        "time exceeded": ICMPv6TimeExceeded(),
        "parameter problem": ICMPv6ParamProblem(code=1, ptr=6),
    },
}
KINDS = [(family, name) for family, messages in MESSAGES.items() for name in messages]


def error(
    family: int,
    about: bytes,
    to: str,
    name: str = "too big",
    source: str = "",
    ttl: int = 60,
) -> Packet:
    """A router's message about an IP packet's beginning."""
    network = ip_layer(family, source or ROUTERS[family], to, ttl)
    return from_router(network / MESSAGES[family][name].copy() / Raw(about))


def answer_of(
    who: Client, protocol: str = "tcp", payload: bytes = b"answer", port: int = PORT
) -> bytes:
    """What a backend of dsr or ipip sends the client, in the VIP's name."""
    host = Client(who.family, VIPS[who.family], port)
    packet = host.to(protocol, payload, vip=who.address, port=who.port)
    return bytes(packets.network_layer(packet))


def untouched(balancer: plane.Balancer, packet: Packet | bytes, reason: str = "PASS_ICMP") -> None:
    frame = bytes(packet)
    balancer.forget_counters()
    result = balancer.run(frame)
    assert result.word == "PASS", f"{result.word} {balancer.reasons()}: {frame.hex()}"
    packets.same(result.data, frame)
    assert balancer.reasons() == {reason: 1}
