# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors through nat: the message and what it quotes are both translated."""

from __future__ import annotations

import packets
import plane
import pytest
from errors import HEADER, KINDS, LEAST, MESSAGES, ROUTERS, error, untouched
from nat import Connection, Nat
from network import CLIENT_MAC, IN_MAC
from packets import FAMILIES, VIPS, Client, client
from scapy.layers.l2 import Ether
from scapy.packet import Packet

families = pytest.mark.parametrize("family", FAMILIES)
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


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


def network(packet: Packet) -> bytes:
    """The packet above its link, one hop further."""
    return bytes(packets.aged(packets.network_layer(packets.parsed(bytes(packet)))))


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
