# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not ours goes up to the host's own stack, byte for byte, whatever is declared."""

from __future__ import annotations

import packets
import plane
import pytest
import tables
from network import CLIENT_MAC, IN_MAC, NEAR
from packets import FAMILIES, PORT, VIPS, client, from_router, ip_layer
from scapy.contrib.lldp import LLDPDU
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

MODES = {"nat": tables.NAT, "dsr": tables.DSR, "ipip": tables.IPIP}


@pytest.fixture(params=[*MODES, "any port"])
def serving(request: pytest.FixtureRequest, balancer: plane.Balancer) -> plane.Balancer:
    """Port 80 over TCP and port 53 over UDP, for both families, in one mode.

    "any port": a second VIP takes every port, which must not rub off on the first.
    """
    mode = MODES.get(request.param, tables.DSR)
    number = 0
    for family in FAMILIES:
        for protocol, port in ((tables.TCP, PORT), (tables.UDP, 53)):
            number += 1
            balancer.service(number, VIPS[family], port, protocol, mode)
            balancer.backend(number, number, NEAR[0], family, port)
            balancer.ring(number, tables.slot(number))
    if request.param == "any port":
        balancer.service(9, "192.0.2.77", 0, tables.TCP, mode)
        balancer.service(10, "2001:db8::77", 0, tables.UDP, mode)
    return balancer


def untouched(balancer: plane.Balancer, packet: Packet | bytes, reason: str) -> None:
    data = bytes(packet)
    before = balancer.reasons()
    result = balancer.run(data)
    assert result.word == "PASS", f"{data.hex()} gave {result.word}, {balancer.reasons()}"
    packets.same(result.data, data)
    assert balancer.reasons() == {**before, reason: before.get(reason, 0) + 1}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("what", ["address", "port", "protocol", "port 0", "ssh"])
def test_a_service_is_matched_exactly(serving: plane.Balancer, family: int, what: str) -> None:
    someone = client(family)
    near_misses = {
        "address": [
            someone.to("tcp", vip=VIPS[family][:-1] + "1"),
            someone.to("tcp", vip={4: "192.0.2.1", 6: "2001:db8::1"}[family]),
            someone.to("tcp", vip={4: "10.0.1.1", 6: "fd00:1::1"}[family]),
            someone.to("udp", port=53, vip={4: "10.2.0.192", 6: "::10"}[family]),
        ],
        "port": [someone.to("tcp", port=port) for port in (1, 79, 81, 443, 20480, 65535)],
        "protocol": [someone.to("udp", port=PORT), someone.to("tcp", port=53)],
        "port 0": [someone.to("tcp", port=0), someone.to("udp", port=0)],
        "ssh": [someone.to("tcp", port=22, flags="S"), someone.to("tcp", b"SSH-2.0", port=22)],
    }
    for packet in near_misses[what]:
        untouched(serving, packet, "PASS_FOREIGN")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("protocol", [4, 41, 47, 50, 51, 59, 132, 255], ids=str)
def test_other_protocols(serving: plane.Balancer, family: int, protocol: int) -> None:
    kind = {"proto": protocol} if family == 4 else {"nh": protocol}
    packet = ip_layer(family, packets.CLIENTS[family], VIPS[family], **kind)
    untouched(serving, from_router(packet / Raw(bytes(range(60)))), "PASS_FOREIGN")


def test_sctp_and_gre_with_our_ports_inside(serving: plane.Balancer) -> None:
    inner = IP(src="198.51.100.7", dst=VIPS[4]) / TCP(dport=PORT)
    for payload in (SCTP(sport=40000, dport=PORT), GRE() / inner, inner):
        packet = IP(src="198.51.100.7", dst=VIPS[4]) / payload
        untouched(serving, from_router(packet), "PASS_FOREIGN")


@pytest.mark.parametrize("vip", ["192.0.2.10", "10.0.1.1"])
def test_arp(serving: plane.Balancer, vip: str) -> None:
    for operation, to in ((1, "ff:ff:ff:ff:ff:ff"), (1, IN_MAC), (2, IN_MAC)):
        packet = Ether(src=CLIENT_MAC, dst=to) / ARP(op=operation, pdst=vip, psrc="10.0.1.254")
        untouched(serving, packet, "PASS_FOREIGN")


def test_neighbour_discovery(serving: plane.Balancer) -> None:
    cases = [
        ("33:33:ff:00:00:10", "ff02::1:ff00:10", ICMPv6ND_NS(tgt=VIPS[6]), "PASS_FOREIGN"),
        (IN_MAC, VIPS[6], ICMPv6ND_NS(tgt=VIPS[6]), "PASS_ICMP"),
        (IN_MAC, VIPS[6], ICMPv6ND_NA(tgt="fd00:1::11"), "PASS_ICMP"),
        (IN_MAC, "fd00:1::1", ICMPv6ND_NA(tgt="fd00:1::11"), "PASS_FOREIGN"),
        ("33:33:00:00:00:01", "ff02::1", ICMPv6ND_RA(), "PASS_FOREIGN"),
    ]
    for mac, address, message, reason in cases:
        packet = Ether(src=CLIENT_MAC, dst=mac) / IPv6(src="fe80::1", dst=address, hlim=255)
        untouched(serving, packet / message, reason)


def test_other_ethertypes(serving: plane.Balancer) -> None:
    inner = bytes(client(4).to("tcp"))[14:]
    for kind in (0x0000, 0x0003, 0x05DC, 0x0801, 0x0806, 0x8847, 0x8863, 0x88CC, 0x86DC, 0xFFFF):
        untouched(serving, Ether(src=CLIENT_MAC, dst=IN_MAC, type=kind) / inner, "PASS_FOREIGN")
    untouched(serving, Ether(src=CLIENT_MAC, dst=IN_MAC, type=0x88CC) / LLDPDU(), "PASS_FOREIGN")


@pytest.mark.parametrize("family", FAMILIES)
def test_vlan_tagged_frames(serving: plane.Balancer, family: int) -> None:
    inner = packets.network_layer(client(family).to("tcp"))
    for tags in (Dot1Q(vlan=5), Dot1Q(vlan=0, prio=3), Dot1AD(vlan=5) / Dot1Q(vlan=7)):
        untouched(serving, from_router(tags / inner), "PASS_FOREIGN")


@pytest.mark.parametrize("family", FAMILIES)
def test_frames_for_many_stations(serving: plane.Balancer, family: int) -> None:
    packet = client(family).to("tcp")
    for mac in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"):
        packet[Ether].dst = mac
        untouched(serving, packet, "PASS_FOREIGN")


@pytest.mark.parametrize(
    "options",
    [[IPOption_NOP()] * 4, [IPOption_RR()], [IPOption_Timestamp(length=8)], [IPOption_NOP()] * 40],
    ids=["4 bytes", "record route", "timestamp", "40 bytes"],
)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_ipv4_options(serving: plane.Balancer, protocol: str, options: list[Packet]) -> None:
    port = {"tcp": PORT, "udp": 53}[protocol]
    packet = client(4).to(protocol, b"data", port=port)
    packet[IP].options = options
    untouched(serving, packet, "PASS_OPTIONS")
    packet[IP].dst = "192.0.2.11"
    untouched(serving, packet, "PASS_FOREIGN")


@pytest.mark.parametrize(
    ("flags", "offset"),
    [("MF", 0), ("MF", 185), ("", 185), ("DF", 1), ("MF+DF", 0), ("", 8191), ("MF+evil", 0)],
)
def test_ipv4_fragments(serving: plane.Balancer, flags: str, offset: int) -> None:
    for protocol, port in (("tcp", PORT), ("udp", 53)):
        packet = client(4).to(protocol, b"data", port=port)
        packet[IP].flags, packet[IP].frag = flags, offset
        untouched(serving, packet, "PASS_FRAGMENT")
        packet[IP].dst = "192.0.2.11"
        untouched(serving, packet, "PASS_FOREIGN")


@pytest.mark.parametrize(("offset", "more"), [(0, 1), (185, 1), (185, 0), (1, 0), (8191, 0)])
@pytest.mark.parametrize("before", [None, IPv6ExtHdrDestOpt()], ids=["alone", "after options"])
def test_ipv6_fragments(
    serving: plane.Balancer, offset: int, more: int, before: Packet | None
) -> None:
    network = IPv6(src=packets.CLIENTS[6], dst=VIPS[6])
    fragment = IPv6ExtHdrFragment(offset=offset, m=more, id=7)
    rest = fragment / TCP(sport=40000, dport=PORT) / Raw(b"data")
    packet = from_router(network / before / rest if before else network / rest)
    untouched(serving, packet, "PASS_FRAGMENT")
    packet[IPv6].dst = "2001:db8::11"
    untouched(serving, packet, "PASS_FOREIGN")


def test_ipv6_routing_header_that_is_not_done(serving: plane.Balancer) -> None:
    network = IPv6(src=packets.CLIENTS[6], dst=VIPS[6])
    header = IPv6ExtHdrRouting(type=2, segleft=1, addresses=["2001:db8::5"])
    untouched(serving, from_router(network / header / TCP(dport=PORT)), "PASS_OPTIONS")


def test_more_ipv6_extensions_than_anybody_sends(serving: plane.Balancer) -> None:
    packet: Packet = IPv6(src=packets.CLIENTS[6], dst=VIPS[6])
    for dummy in range(12):
        packet = packet / IPv6ExtHdrDestOpt()
    untouched(serving, from_router(packet / TCP(dport=PORT)), "PASS_OPTIONS")
    long = IPv6(src=packets.CLIENTS[6], dst=VIPS[6]) / IPv6ExtHdrHopByHop(len=255)
    untouched(serving, from_router(long / bytes(2042) / TCP(dport=PORT)), "PASS_OPTIONS")


@pytest.mark.parametrize("message", [9, 10, 13, 15, 17, 5, 40], ids=str)
def test_other_icmp(serving: plane.Balancer, message: int) -> None:
    packet = IP(src=packets.CLIENTS[4], dst=VIPS[4]) / ICMP(type=message) / bytes(64)
    untouched(serving, from_router(packet), "PASS_ICMP")
    packet[IP].dst = "192.0.2.11"
    untouched(serving, from_router(packet), "PASS_FOREIGN")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_wrong_family_s_icmp(serving: plane.Balancer, family: int) -> None:
    """ICMP in IPv6 and ICMPv6 in IPv4 exist on no network; the keys of bare VIPs look like them."""
    kind = {"proto": 58} if family == 4 else {"nh": 1}
    packet = ip_layer(family, packets.CLIENTS[family], VIPS[family], **kind)
    untouched(serving, from_router(packet / (b"\x80\0\0\0" + bytes(28))), "PASS_FOREIGN")


@pytest.mark.parametrize("layout", [0, 2, 99, 0xFFFFFFFF])
@pytest.mark.parametrize("family", FAMILIES)
def test_another_layout(serving: plane.Balancer, family: int, layout: int) -> None:
    serving.configure(layout=layout)
    untouched(serving, client(family).to("tcp"), "PASS_NOT_CONFIGURED")


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_declared(balancer: plane.Balancer, family: int) -> None:
    for protocol in ("tcp", "udp"):
        untouched(balancer, client(family).to(protocol), "PASS_FOREIGN")


def test_a_packet_to_nobody(serving: plane.Balancer) -> None:
    """Every length of nothing at all, and of noise."""
    for size in range(14, 120):
        untouched(serving, bytes(size), "PASS_FOREIGN")
        untouched(serving, b"\xff" * size, "PASS_FOREIGN")


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_with_a_length_that_lies(serving: plane.Balancer, family: int) -> None:
    packet = client(family).to("udp", b"x" * 20, port=53)
    for length in (0, 1, 7, 29, 30, 1000, 65535):
        packet[UDP].len = length
        untouched(serving, packet, "PASS_MALFORMED")


@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_with_a_header_length_that_lies(serving: plane.Balancer, family: int) -> None:
    packet = client(family).to("tcp", b"x" * 11)
    for words in (0, 1, 4, 8, 15):
        packet[TCP].dataofs = words
        untouched(serving, packet, "PASS_MALFORMED")
