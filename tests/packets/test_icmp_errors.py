# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors: the packet that they quote says whose they are, and both are translated for nat."""

from __future__ import annotations

import expect
import packets
import plane
import pytest
import tables
from expect import STATELESS, Mode
from nat import Connection, Nat
from network import CLIENT_MAC, FAR, IN_MAC, NEAR
from packets import FAMILIES, PORT, VIPS, Client, client, from_router, ip_layer
from scapy.layers.inet import ICMP, IP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from test_moved import NEW, NEXT, OLD, Moved

modes = pytest.mark.parametrize("mode", STATELESS, ids=str)
families = pytest.mark.parametrize("family", FAMILIES)
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])

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


# dsr and ipip


def serve(balancer: plane.Balancer, mode: Mode, flags: int = 0) -> None:
    for service, protocol in ((1, tables.TCP), (2, tables.UDP)):
        balancer.service(service, VIPS[mode.family], PORT, protocol, mode.forwarding, flags)
        balancer.backend(service, service, NEAR[0], mode.backends)
        balancer.ring(service, tables.slot(service))


@pytest.mark.parametrize(
    ("mode", "name"),
    [(mode, name) for mode in STATELESS for name in MESSAGES[mode.family]],
    ids=str,
)
@protocols
def test_to_the_backend(balancer: plane.Balancer, mode: Mode, name: str, protocol: str) -> None:
    serve(balancer, mode)
    about = answer_of(client(mode.family), protocol)
    for size in (LEAST[mode.family], LEAST[mode.family] + 1, len(about)):
        frame = bytes(error(mode.family, about[:size], VIPS[mode.family], name))
        expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])
    assert balancer.reasons() == {"ICMP_FORWARDED": 3}


@modes
def test_to_the_backend_that_has_the_flow(balancer: plane.Balancer, mode: Mode) -> None:
    """As the ring says for the client's packets, not for the router's."""
    serve(balancer, mode)
    hosts = (*NEAR, *FAR)
    for number, host in enumerate(hosts):
        balancer.backend(10 + number, 1, host, mode.backends)
    slots = (tables.slot(10 + at % len(hosts)) for at in range(tables.RING_SLOTS))
    balancer.ring(1, b"".join(slots))
    seen = set()
    for port in range(3000, 3030):
        who = client(mode.family, 0, port)
        chosen = balancer.run(bytes(who.to("tcp"))).data[:12]
        frame = bytes(error(mode.family, answer_of(who), VIPS[mode.family]))
        assert balancer.run(frame).data[:12] == chosen
        seen.add(chosen)
    assert len(seen) > 5


@modes
def test_by_source(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, tables.BY_SOURCE)
    frame = bytes(error(mode.family, answer_of(client(mode.family)), VIPS[mode.family]))
    expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])


@modes
def test_any_port(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    balancer.service(1, VIPS[mode.family], 0, tables.TCP, mode.forwarding)
    about = answer_of(client(mode.family), port=4711)
    frame = bytes(error(mode.family, about, VIPS[mode.family]))
    expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])


@modes
def test_in_moved_slots(balancer: plane.Balancer, mode: Mode) -> None:
    """The flow tables decide, and an error opens nothing."""
    moved = Moved(balancer, mode)
    old, new = client(mode.family, 1), client(mode.family, 2)
    moved.tcp(NEW, "S", who=new)
    moved.tcp(NEW, "A", who=new)
    for who, number in ((new, NEW), (old, OLD)):
        moved.goes_to(number, bytes(error(mode.family, answer_of(who), VIPS[mode.family])))
    moved.move(NEXT, NEW)
    moved.goes_to(NEW, bytes(error(mode.family, answer_of(new), VIPS[mode.family])))


@modes
def test_no_hop_left(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    frame = bytes(error(mode.family, answer_of(client(mode.family)), VIPS[mode.family], ttl=1))
    assert balancer.run(frame).word == "DROP"
    assert balancer.reasons()["DROP_TTL"] == 1


@modes
def test_about_nothing_of_ours(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    family, vip, who = mode.family, VIPS[mode.family], client(mode.family)
    elsewhere = Client(family, vip[:-1] + "1", PORT).to("tcp", vip=who.address, port=who.port)
    for about in (
        answer_of(who, port=81),
        answer_of(who, "udp", port=53),
        bytes(packets.network_layer(elsewhere)),
        bytes(ip_layer(family, vip, who.address) / Raw(bytes(40))),
        bytes(60),
        b"\xff" * 60,
    ):
        untouched(balancer, error(family, about, vip))
    untouched(balancer, error(family, answer_of(who), vip[:-1] + "1"), "PASS_FOREIGN")


@modes
def test_quotes_that_are_too_short(balancer: plane.Balancer, mode: Mode) -> None:
    """Padding does not make them longer."""
    serve(balancer, mode)
    about = answer_of(client(mode.family))
    for size in range(LEAST[mode.family]):
        packet = bytes(error(mode.family, about[:size], VIPS[mode.family]))
        untouched(balancer, packet)
        untouched(balancer, packet + about[size:])


def test_quotes_that_say_no_ports(balancer: plane.Balancer) -> None:
    serve(balancer, STATELESS[0])
    about = IP(answer_of(client(4)))
    later = about.copy()
    later.frag = 100
    optional = about.copy()
    optional.options = [IPOption_NOP()] * 4
    optional.ihl, optional.len, optional.chksum = None, None, None
    for quote in (later, optional):
        untouched(balancer, error(4, bytes(quote), VIPS[4]))


def test_a_quote_behind_extension_headers(balancer: plane.Balancer) -> None:
    serve(balancer, STATELESS[1])
    about = IPv6(answer_of(client(6)))
    transport = about.payload.copy()
    about.remove_payload()
    about.nh, about.plen = None, None
    frame = bytes(error(6, bytes(about / IPv6ExtHdrDestOpt() / transport), VIPS[6]))
    expect.forwarded(balancer, STATELESS[1], frame, balancer.run(frame), NEAR[0])


@modes
def test_other_messages(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    others = {4: [4, 5, 0, 9, 10, 13, 14, 17], 6: [129, 130, 133, 134, 135, 136, 137, 143]}
    for kind in others[mode.family]:
        packet = error(mode.family, answer_of(client(mode.family)), VIPS[mode.family])
        frame = bytearray(bytes(packet))
        frame[14 + HEADER[mode.family]] = kind
        untouched(balancer, bytes(frame))


# nat


def quote(packet: bytes, translated: bytes, size: int, protocol: str, family: int) -> bytes:
    """What of the translated packet an error of this length holds.

    TCP's checksum is translated where all of it is quoted.
    """
    made = bytearray(translated[:size])
    at = HEADER[family] + {"tcp": 16, "udp": 6}[protocol]
    if size < at + 2:
        made[at:] = packet[at:size]
    return bytes(made)


def sizes(family: int, protocol: str, whole: int) -> list[int]:
    """Around all that is rewritten, and all of it."""
    least = LEAST[family]
    return [*range(least, least + 14), whole] if protocol == "tcp" else [least, least + 1, whole]


def network(packet: Packet, aged: bool = True) -> bytes:
    layer = packets.network_layer(packets.parsed(bytes(packet)))
    return bytes(packets.aged(layer)) if aged else bytes(layer)


def opened(nat: Nat, protocol: str, **fields: object) -> Connection:
    connection = nat.connection(client(nat.family), protocol)
    if protocol == "tcp":
        return connection.open()
    connection.send(b"question", **fields)
    connection.answer(b"answer", **fields)
    return connection


@pytest.mark.parametrize(("family", "name"), KINDS, ids=str)
@protocols
def test_about_a_request(balancer: plane.Balancer, family: int, name: str, protocol: str) -> None:
    """From beyond the balancer: the client hears of it, from the VIP, about its own packet."""
    nat = Nat(balancer, family)
    connection = opened(nat, protocol)
    request = connection.from_client(b"some request")
    sent = connection.send(b"some request")[14:]
    for size in sizes(family, protocol, len(sent)):
        for router in (ROUTERS[family], connection.backend[0]):
            packet = error(family, sent[:size], nat.own, name, source=router)
            balancer.forget_counters()
            result = balancer.run(bytes(packet))
            assert result.word == "TX", f"{result.word} {balancer.reasons()}"
            told = quote(sent, network(request), size, protocol, family)
            plain = error(family, told, connection.who.address, name, VIPS[family], ttl=59)
            expected = Ether(src=IN_MAC, dst=CLIENT_MAC) / packets.network_layer(plain)
            packets.same(result.data, bytes(expected))
            assert balancer.reasons() == {"ICMP_FORWARDED": 1}


@pytest.mark.parametrize(("family", "name"), KINDS, ids=str)
@protocols
def test_about_an_answer(balancer: plane.Balancer, family: int, name: str, protocol: str) -> None:
    """From the client's side: the backend hears of it, from the balancer, about its own packet."""
    nat = Nat(balancer, family)
    connection = opened(nat, protocol)
    answer = connection.from_backend(b"some answer")
    sent = connection.answer(b"some answer")[14:]
    for size in sizes(family, protocol, len(sent)):
        for router in (ROUTERS[family], connection.who.address):
            packet = error(family, sent[:size], VIPS[family], name, source=router)
            balancer.forget_counters()
            result = balancer.run(bytes(packet))
            assert result.word == "TX", f"{result.word} {balancer.reasons()}"
            told = quote(sent, network(answer), size, protocol, family)
            plain = error(family, told, connection.backend[0], name, nat.own, ttl=59)
            expected = packets.sent_to(connection.host, packets.network_layer(plain))
            packets.same(result.data, expected)
            assert balancer.reasons() == {"ICMP_FORWARDED": 1}


@families
def test_about_an_opening_connection(balancer: plane.Balancer, family: int) -> None:
    """The backend's port is closed, or its path too narrow for the SYN."""
    nat = Nat(balancer, family)
    connection = nat.connection(client(family))
    sent = connection.send(flags="S")[14:]
    result = balancer.run(bytes(error(family, sent, nat.own, "port unreachable")))
    assert result.word == "TX"
    assert packets.transport_sum(result.data) == 0xFFFF
    assert packets.network_layer(packets.parsed(result.data)).dst == connection.who.address


@families
def test_about_datagrams_without_a_checksum(balancer: plane.Balancer, family: int) -> None:
    """None stays none in the quote, too."""
    nat = Nat(balancer, family)
    connection = opened(nat, "udp", chksum=0)
    sent = connection.send(b"question", chksum=0)[14:]
    result = balancer.run(bytes(error(family, sent, nat.own)))
    request = network(connection.from_client(b"question", chksum=0))
    assert result.data.endswith(request)
    assert packets.transport_sum(result.data) == 0xFFFF


@families
@protocols
def test_about_connections_of_nobody(balancer: plane.Balancer, family: int, protocol: str) -> None:
    nat = Nat(balancer, family)
    connection = opened(nat, protocol)
    sent = connection.send(b"request")[14:]
    answered = connection.answer(b"answer")[14:]
    other = Connection(nat, client(family, 5), protocol, 0, port=connection.port + 1)
    untouched(balancer, error(family, network(other.from_backend()), VIPS[family]))
    stranger = Client(family, nat.own, connection.port + 1).to(
        protocol, vip=connection.backend[0], port=connection.backend[1]
    )
    untouched(balancer, error(family, network(stranger), nat.own), "PASS_FOREIGN")
    # to another address than the one that the packet was sent from
    untouched(balancer, error(family, sent, VIPS[family]))
    untouched(balancer, error(family, answered, nat.own), "PASS_FOREIGN")


@families
@protocols
def test_nat_quotes_that_are_too_short(
    balancer: plane.Balancer, family: int, protocol: str
) -> None:
    nat = Nat(balancer, family)
    connection = opened(nat, protocol)
    sent = connection.send(b"request")[14:]
    answered = connection.answer(b"answer")[14:]
    for size in range(LEAST[family]):
        for about, to, reason in (
            (sent, nat.own, "PASS_FOREIGN"),
            (answered, VIPS[family], "PASS_ICMP"),
        ):
            packet = bytes(error(family, about[:size], to))
            untouched(balancer, packet, reason)
            untouched(balancer, packet + about[size:], reason)


@families
def test_errors_that_were_cut(balancer: plane.Balancer, family: int) -> None:
    nat = Nat(balancer, family)
    connection = opened(nat, "tcp")
    sent = connection.send(b"request")[14:]
    frame = bytes(error(family, sent, nat.own))
    for size in range(14, len(frame)):
        result = balancer.run(frame[:size])
        assert (result.word, result.data) == ("PASS", frame[:size])


@families
def test_a_wrong_checksum_stays_wrong(balancer: plane.Balancer, family: int) -> None:
    nat = Nat(balancer, family)
    connection = opened(nat, "tcp")
    sent = connection.send(b"request")[14:]
    frame = bytearray(bytes(error(family, sent, nat.own)))
    frame[-1] ^= 0x5A
    result = balancer.run(bytes(frame))
    assert result.word == "TX"
    assert packets.transport_sum(result.data) == packets.transport_sum(bytes(frame)) != 0xFFFF


@families
def test_nat_no_hop_left(balancer: plane.Balancer, family: int) -> None:
    nat = Nat(balancer, family)
    connection = opened(nat, "tcp")
    sent = connection.send(b"request")[14:]
    answered = connection.answer(b"answer")[14:]
    for about, to in ((sent, nat.own), (answered, VIPS[family])):
        assert balancer.run(bytes(error(family, about, to, ttl=1))).word == "DROP"
    assert balancer.reasons() == {"DROP_TTL": 2}


@families
def test_an_error_ends_nothing(balancer: plane.Balancer, family: int) -> None:
    """Anybody can send one."""
    nat = Nat(balancer, family)
    connection = opened(nat, "tcp")
    before = connection.entry()
    sent = connection.send(b"request")[14:]
    for name in MESSAGES[family]:
        balancer.run(bytes(error(family, sent, nat.own, name)))
    after = connection.entry()
    assert before
    assert after
    assert (before.state, before.port) == (after.state, after.port)
    connection.talk()
