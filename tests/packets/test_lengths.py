# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets that end early, and length fields that say otherwise, at every byte."""

from __future__ import annotations

import expect
import packets
import plane
import pytest
import tables
from expect import MODES, STATELESS, Mode
from network import NEAR
from packets import PORT, VIPS, client
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.packet import Raw

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
LEFT_ALONE = {"PASS_FOREIGN", "PASS_MALFORMED", "PASS_OPTIONS"}


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest, balancer: plane.Balancer) -> Mode:
    mode = request.param
    for service, protocol in ((1, tables.TCP), (2, tables.UDP)):
        balancer.service(service, VIPS[mode.family], PORT, protocol, mode.forwarding)
        balancer.backend(service, service, NEAR[0], mode.backends)
        balancer.ring(service, tables.slot(service))
    return mode


def untouched(balancer: plane.Balancer, frame: bytes) -> None:
    balancer.forget_counters()
    result = balancer.run(frame)
    assert result.word == "PASS", f"{frame.hex()} gave {result.word}, {balancer.reasons()}"
    packets.same(result.data, frame)
    assert set(balancer.reasons()) <= LEFT_ALONE, balancer.reasons()


def with_length(frame: bytes, length: int) -> bytes:
    """Let the IP header claim a length, itself included; IPv4's checksum is made to fit."""
    packet = packets.parsed(frame)
    if IP in packet:
        packet[IP].len, packet[IP].chksum = length, None
        return frame[:14] + bytes(packet[IP])[:20] + frame[34:]
    packet[IPv6].plen = length - 40
    return frame[:14] + bytes(packet[IPv6])[:40] + frame[54:]


def shortest(mode: Mode, protocol: str) -> int:
    """Ethernet, IP and transport header."""
    return 14 + {4: 20, 6: 40}[mode.family] + {"tcp": 20, "udp": 8}[protocol]


@protocols
def test_a_frame_that_was_cut(balancer: plane.Balancer, mode: Mode, protocol: str) -> None:
    frame = bytes(client(mode.family).to(protocol, b"x" * 30))
    for size in range(14, len(frame)):
        untouched(balancer, frame[:size])


@protocols
def test_a_packet_that_was_cut_and_says_so(
    balancer: plane.Balancer, mode: Mode, protocol: str
) -> None:
    """The IP header tells the truth; the header above it does not fit."""
    frame = bytes(client(mode.family).to(protocol))
    for size in range(14 + {4: 20, 6: 40}[mode.family], shortest(mode, protocol)):
        untouched(balancer, with_length(frame[:size], size - 14))


@protocols
def test_ip_lengths_that_lie(balancer: plane.Balancer, mode: Mode, protocol: str) -> None:
    frame = bytes(client(mode.family).to(protocol, b"x" * 30))
    base, whole = {4: 0, 6: 40}[mode.family], len(frame) - 14
    short = {"tcp": shortest(mode, protocol) - 14, "udp": whole}[protocol]
    for length in (*range(base, short), *range(whole + 1, whole + 40), 1500, 9000, 0xFFFF):
        untouched(balancer, with_length(frame, length))


@pytest.mark.parametrize("length", [*range(20), 0xFFFF])
def test_ipv4_shorter_than_its_header(balancer: plane.Balancer, mode: Mode, length: int) -> None:
    if mode.family == 4:
        untouched(balancer, with_length(bytes(client(4).to("tcp", b"data")), length))


def test_any_version_and_header_length(balancer: plane.Balancer, mode: Mode) -> None:
    frame = bytearray(bytes(client(mode.family).to("tcp", bytes(60), flags="S")))
    for byte in range(256):
        right = byte == 0x45 if mode.family == 4 else byte >> 4 == 6
        if not right:
            frame[14] = byte
            balancer.forget_counters()
            result = balancer.run(bytes(frame))
            assert result.word == "PASS", f"{bytes(frame).hex()} gave {result.word}"
            packets.same(result.data, bytes(frame))


@protocols
def test_padding_is_not_the_packet_s(balancer: plane.Balancer, mode: Mode, protocol: str) -> None:
    """A header that is complete only with the frame's padding is not complete."""
    frame = bytes(client(mode.family).to(protocol, b"x" * 30))
    start = {4: 20, 6: 40}[mode.family]
    for length in range(start, shortest(mode, protocol) - 14):
        untouched(balancer, with_length(frame, length))


def test_tcp_header_lengths(balancer: plane.Balancer, mode: Mode) -> None:
    for words in (*range(5), 14, 15):
        packet = client(mode.family).to("tcp", b"x" * 35, flags="S")
        packet[TCP].dataofs = words
        untouched(balancer, bytes(packet))


def test_udp_lengths(balancer: plane.Balancer, mode: Mode) -> None:
    for length in (*range(8), *range(39, 60), 0xFFFF):
        packet = client(mode.family).to("udp", b"x" * 30)
        packet[UDP].len = length
        untouched(balancer, bytes(packet))


stateless6 = pytest.mark.parametrize(
    "mode", [mode for mode in STATELESS if mode.family == 6], ids=str, indirect=True
)


@stateless6
def test_ipv6_extensions_that_were_cut(balancer: plane.Balancer, mode: Mode) -> None:
    network = IPv6(src=packets.CLIENTS[6], dst=VIPS[6])
    headers = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt()
    whole = bytes(packets.from_router(network / headers / TCP(dport=PORT) / Raw(b"data")))
    for size in range(14, len(whole)):
        untouched(balancer, whole[:size])
        if size >= 54:
            frame = with_length(whole[:size], size - 14)
            if size < 54 + 16 + 20:
                untouched(balancer, frame)
            else:
                expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])


@stateless6
def test_ipv6_extensions_of_every_length(balancer: plane.Balancer, mode: Mode) -> None:
    network = IPv6(src=packets.CLIENTS[6], dst=VIPS[6], nh=60)
    for claimed in range(256):
        header = bytes([6, claimed]) + bytes(6)
        tcp = bytes(TCP(sport=0, dport=0, dataofs=5))
        untouched(balancer, bytes(packets.from_router(network / Raw(header + tcp + bytes(99)))))
