# SPDX-License-Identifier: GPL-3.0-or-later
"""What the balancer answers itself: echo, and packets that do not fit."""

from __future__ import annotations

import expect
import packets
import plane
import pytest
import tables
from expect import STATELESS, Mode
from network import CLIENT_MAC, IN_MAC, NARROW, NEAR, Host
from packets import CLIENTS, FAMILIES, PORT, VIPS, client, from_router, ip_layer
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

QUOTED = 128


def request(family: int, payload: bytes, ttl: int = 64, **fields: object) -> Packet:
    network = ip_layer(family, CLIENTS[family], VIPS[family], ttl)
    if family == 4:
        return from_router(network / ICMP(type=8, id=7, seq=9, **fields) / Raw(payload))
    return from_router(network / ICMPv6EchoRequest(id=7, seq=9, data=payload, **fields))


def answer(asked: Packet) -> bytes:
    """The same packet turned round, as a host would send it."""
    made = packets.parsed(bytes(asked))
    made[Ether].src, made[Ether].dst = IN_MAC, CLIENT_MAC
    if IP in made:
        made[IP].src, made[IP].dst, made[IP].ttl = made[IP].dst, made[IP].src, 64
        made[ICMP].type = 0
        del made[IP].chksum, made[ICMP].chksum
        return bytes(made)
    made[IPv6].src, made[IPv6].dst, made[IPv6].hlim = made[IPv6].dst, made[IPv6].src, 64
    asking = made[ICMPv6EchoRequest]
    reply = ICMPv6EchoReply(id=asking.id, seq=asking.seq, data=asking.data)
    asking.underlayer.remove_payload()
    return bytes(made / reply)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [0, 1, 2, 3, 55, 56, 1000, 1400])
@pytest.mark.parametrize("ttl", [1, 63, 64, 255])
def test_echo(balancer: plane.Balancer, family: int, size: int, ttl: int) -> None:
    balancer.vip(VIPS[family])
    asked = request(family, bytes(at % 251 for at in range(size)), ttl)
    result = balancer.run(bytes(asked))
    assert result.word == "TX"
    packets.same(result.data, answer(asked))
    assert balancer.reasons() == {"ECHO_REPLIED": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_checksums_at_their_borders(balancer: plane.Balancer, family: int) -> None:
    balancer.vip(VIPS[family])
    for number in (*range(0, 65536, 509), *range(0xF700, 0xF810), 0xFFFF):
        asked = request(family, number.to_bytes(2, "big"))
        packets.same(balancer.run(bytes(asked)).data, answer(asked))


def test_echo_behind_extension_headers(balancer: plane.Balancer) -> None:
    balancer.vip(VIPS[6])
    network = IPv6(src=CLIENTS[6], dst=VIPS[6]) / IPv6ExtHdrDestOpt()
    asked = from_router(network / ICMPv6EchoRequest(id=7, seq=9, data=b"data"))
    packets.same(balancer.run(bytes(asked)).data, answer(asked))


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_with_padding(balancer: plane.Balancer, family: int) -> None:
    balancer.vip(VIPS[family])
    asked = request(family, b"x")
    result = balancer.run(bytes(asked) + bytes(17))
    packets.same(result.data, answer(asked) + bytes(17))


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_of_others(balancer: plane.Balancer, family: int) -> None:
    """Requests to no VIP, and replies to one."""
    balancer.vip(VIPS[family])
    asked = request(family, b"data")
    asked.payload.dst = VIPS[family][:-1] + "1"
    result = balancer.run(bytes(asked))
    assert (result.word, result.data) == ("PASS", bytes(asked))
    back = request(family, b"data")
    back.payload.payload.type = {4: 0, 6: 129}[family]
    result = balancer.run(bytes(back))
    assert (result.word, result.data) == ("PASS", bytes(back))
    assert balancer.reasons() == {"PASS_FOREIGN": 1, "PASS_ICMP": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_with_another_code(balancer: plane.Balancer, family: int) -> None:
    """Whatever becomes of it, the checksum is right or the packet is untouched."""
    balancer.vip(VIPS[family])
    asked = bytes(request(family, b"data", code=1))
    result = balancer.run(asked)
    assert result.word in ("PASS", "TX")
    assert result.data == asked or packets.transport_sum(result.data) == 0xFFFF


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_checksum_is_not_made_right(balancer: plane.Balancer, family: int) -> None:
    balancer.vip(VIPS[family])
    asked = bytearray(bytes(request(family, b"data")))
    asked[-1] ^= 0x55
    result = balancer.run(bytes(asked))
    assert result.data == asked or packets.transport_sum(result.data) != 0xFFFF


@pytest.mark.parametrize("family", FAMILIES)
def test_echo_that_was_cut(balancer: plane.Balancer, family: int) -> None:
    balancer.vip(VIPS[family])
    asked = bytes(request(family, bytes(30)))
    for size in range(14, len(asked)):
        result = balancer.run(asked[:size])
        assert (result.word, result.data) == ("PASS", asked[:size])


# too big


def too_big(mode: Mode, frame: bytes, mtu: int) -> bytes:
    """From the VIP to the client, with as much of the packet as the balancer quotes."""
    quoted = Raw(frame[14 : 14 + QUOTED])
    vip, someone = VIPS[mode.family], CLIENTS[mode.family]
    link = Ether(src=IN_MAC, dst=CLIENT_MAC)
    if mode.family == 4:
        network = IP(src=vip, dst=someone, id=0, flags="DF", ttl=64)
        return bytes(link / network / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted)
    network = IPv6(src=vip, dst=someone, hlim=64)
    return bytes(link / network / ICMPv6PacketTooBig(mtu=mtu) / quoted)


@pytest.mark.parametrize("mode", STATELESS, ids=str)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("host", [NEAR[0], NARROW], ids=["1500", "1400"])
@pytest.mark.parametrize("over", [1, 2, 3, 200])
def test_too_big(
    balancer: plane.Balancer, mode: Mode, protocol: str, host: Host, over: int
) -> None:
    if mode.name == "dsr":
        host = NEAR[0]
    number = packets.NUMBERS[protocol]
    balancer.service(1, VIPS[mode.family], PORT, number, mode.forwarding)
    balancer.backend(1, 1, host, mode.backends)
    balancer.ring(1, tables.slot(1))
    most = host.mtu - mode.overhead
    headers = {4: 20, 6: 40}[mode.family] + {"tcp": 20, "udp": 8}[protocol]
    payload = bytes(at % 251 for at in range(most + over - headers))
    frame = bytes(client(mode.family).to(protocol, payload))
    result = balancer.run(frame)
    assert result.word == "TX"
    packets.same(result.data, too_big(mode, frame, most))
    assert balancer.reasons() == {"TOO_BIG_SENT": 1}
    assert balancer.backend_counters(1) == (0, 0, 0)
    fits = bytes(client(mode.family).to(protocol, payload[:-over]))
    expect.forwarded(balancer, mode, fits, balancer.run(fits), host)


@pytest.mark.parametrize("mode", STATELESS[2:], ids=str)
def test_too_big_with_padding(balancer: plane.Balancer, mode: Mode) -> None:
    """The padding is not quoted, and does not count."""
    balancer.service(1, VIPS[mode.family], PORT, tables.TCP, mode.forwarding)
    balancer.backend(1, 1, NEAR[0], mode.backends)
    balancer.ring(1, tables.slot(1))
    payload = bytes(1500 - mode.overhead - {4: 40, 6: 60}[mode.family])
    fits = bytes(client(mode.family).to("tcp", payload)) + bytes(100)
    expect.forwarded(balancer, mode, fits, balancer.run(fits), NEAR[0])
    frame = bytes(client(mode.family).to("tcp", payload + b"x"))
    result = balancer.run(frame + bytes(100))
    packets.same(result.data, too_big(mode, frame, 1500 - mode.overhead))
