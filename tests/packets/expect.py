# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to come out, built by scapy from what went in."""

from __future__ import annotations

from dataclasses import dataclass

import packets
import plane
import tables
from network import Host
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

VERDICT = {True: "TX", False: "REDIRECT"}
OUTER = {4: 20, 6: 40}


@dataclass(frozen=True)
class Mode:
    """A way to forward, between families."""

    name: str
    family: int  # of clients and VIP
    backends: int  # family of the backends' addresses

    @property
    def forwarding(self) -> int:
        return {"nat": tables.NAT, "dsr": tables.DSR, "ipip": tables.IPIP}[self.name]

    @property
    def overhead(self) -> int:
        return OUTER[self.backends] if self.name == "ipip" else 0

    def __str__(self) -> str:
        return f"{self.name}-{self.family}" + f"in{self.backends}" * (self.name == "ipip")


STATELESS = (
    Mode("dsr", 4, 4),
    Mode("dsr", 6, 6),
    Mode("ipip", 4, 4),
    Mode("ipip", 6, 6),
    Mode("ipip", 4, 6),
)
TRANSLATING = (Mode("nat", 4, 4), Mode("nat", 6, 6))
MODES = (*STATELESS, *TRANSLATING)


def forwarded(
    balancer: plane.Balancer, mode: Mode, frame: bytes, result: plane.Result, host: Host
) -> None:
    """A frame that went to the host in a mode without state, byte for byte."""
    assert result.word == VERDICT[host.tx], f"{result.word}, {balancer.reasons()}: {frame.hex()}"
    length = ip_length(frame)
    inner = packets.aged(packets.network_layer(packets.parsed(frame[: 14 + length])))
    padding = frame[14 + length :]
    if mode.name == "dsr":
        packets.same(result.data, packets.sent_to(host, inner) + padding)
        return
    outer = outer_header(balancer, mode, inner, host, result.data)
    packets.same(result.data, packets.sent_to(host, outer / Raw(bytes(inner))) + padding)


def ip_length(frame: bytes) -> int:
    """What the IP header says of the packet's length, itself included."""
    if frame[12:14] == b"\x08\x00":
        return int.from_bytes(frame[16:18], "big")
    return 40 + int.from_bytes(frame[18:20], "big")


def outer_header(
    balancer: plane.Balancer, mode: Mode, inner: Packet, host: Host, got: bytes
) -> Packet:
    """RFC 2003, RFC 2473: traffic class copied, a hop limit of its own, atomic. Any flow label."""
    kind = inner.tos if isinstance(inner, IP) else inner.tc
    protocol = 4 if mode.family == 4 else 41
    if mode.backends == 4:
        source = balancer.settings.source4
        return IP(src=source, dst=host.ipv4, tos=kind, id=0, flags="DF", ttl=64, proto=protocol)
    label = int.from_bytes(got[14:18], "big") & 0xFFFFF
    source = balancer.settings.source6
    return IPv6(src=source, dst=host.ipv6, tc=kind, fl=label, hlim=64, nh=protocol)


def dropped(
    balancer: plane.Balancer, packet: Packet | bytes, reason: str, service: int = 1
) -> None:
    """The packet is dropped, for this reason alone, and its service knows of it."""
    before, known = balancer.reasons(), balancer.service_counters(service)[0]
    result = balancer.run(bytes(packet))
    assert result.word == "DROP", f"{result.word}, {balancer.reasons()}: {bytes(packet).hex()}"
    assert balancer.reasons() == {**before, reason: before.get(reason, 0) + 1}
    assert balancer.service_counters(service)[0] == known + 1
