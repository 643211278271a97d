# SPDX-License-Identifier: GPL-3.0-or-later
"""nat: the life of a connection, both ways, byte for byte."""

from __future__ import annotations

import random

import packets
import plane
import pytest
import tables
from nat import SERVER_SEQUENCE, Connection, Nat
from network import (
    FAR,
    NEAR,
    ROUTED,
    Host,
)
from packets import FAMILIES, VIPS, Client, client
from tables import BACKEND_FIN, CLIENT_FIN, OPEN, OPENING, RESET

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
CONFIRMED, UNCONFIRMED, NONE = (0, 1, 0, 1), (1, 0, 1, 0), (0, 0, 0, 0)


def test_a_connection(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone)
    connection.send(flags="S", seq=100, ack=0)
    assert nat.sizes() == UNCONFIRMED
    entry = connection.entry("nat_opening")
    assert entry
    assert (entry.backend, entry.port, entry.state) == (10, connection.port, OPENING)
    assert entry.protocol == tables.TCP
    assert abs(entry.seen - plane.seconds()) <= 2
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    assert nat.sizes() == UNCONFIRMED
    connection.send(flags="A", seq=101, ack=SERVER_SEQUENCE + 1)
    assert nat.sizes() == CONFIRMED
    for dummy in range(3):
        connection.talk()
    entry = connection.entry()
    assert entry
    assert (entry.backend, entry.port, entry.state) == (10, connection.port, OPEN)
    assert nat.balancer.keys("nat_replies") == [connection.reply_key]
    connection.send(flags="FA", seq=119, ack=1)
    entry = connection.entry()
    assert entry
    assert entry.state == OPEN | CLIENT_FIN
    connection.answer(b"still", flags="PA")
    connection.answer(flags="FA")
    entry = connection.entry()
    assert entry
    assert entry.state == OPEN | CLIENT_FIN | BACKEND_FIN
    connection.send(flags="A", seq=120, ack=2)
    connection.answer(flags="FA")  # again, as the acknowledgement was lost
    connection.send(flags="A", seq=120, ack=2)
    assert nat.balancer.reasons() == {}


def test_a_connection_over_udp(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone, "udp")
    connection.send(b"question")
    assert nat.sizes() == UNCONFIRMED
    connection.send(b"question")
    assert nat.sizes() == UNCONFIRMED
    connection.answer(b"answer")
    assert nat.sizes() == CONFIRMED
    for dummy in range(3):
        connection.send(b"question")
        connection.answer(b"answer")
    assert nat.sizes() == CONFIRMED
    assert nat.balancer.backend_counters(20)[2] == 1


@protocols
@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1400])
def test_payloads_of_any_length(nat: Nat, someone: Client, protocol: str, size: int) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    payload = bytes(at % 251 for at in range(size))
    connection.send(payload)
    connection.answer(payload)


@protocols
def test_checksums_at_their_borders(nat: Nat, someone: Client, protocol: str) -> None:
    """Payloads that make the checksum, before or after, run through what wraps: 0 and 0xFFFF."""
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    else:
        connection.send()
    for packet, run in (
        (connection.from_client(b"\0\0"), connection.send),
        (connection.from_backend(b"\0\0"), connection.answer),
    ):
        before = packets.parsed(bytes(packet)).lastlayer().underlayer.chksum
        after = int.from_bytes(
            run(b"\0\0")[{4: 34, 6: 54}[nat.family] :][{"tcp": 16, "udp": 6}[protocol] :][:2], "big"
        )
        for base in (before, after):
            for step in range(-3, 4):
                run(((base + step) & 0xFFFF).to_bytes(2, "big"))


def test_random_payloads(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone, "udp")
    chance = random.Random(11)
    for dummy in range(50):
        connection.send(chance.randbytes(chance.randrange(40)))
        connection.answer(chance.randbytes(chance.randrange(40)))


def test_udp_without_a_checksum(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone, "udp")
    connection.send(b"question", chksum=0)
    connection.answer(b"answer", chksum=0)


@protocols
def test_a_wrong_checksum_stays_wrong(nat: Nat, someone: Client, protocol: str) -> None:
    connection = nat.connection(someone, protocol)
    frame = bytearray(
        bytes(connection.from_client(b"data", **({"flags": "S"} if protocol == "tcp" else {})))
    )
    frame[-1] ^= 0x77
    result = nat.balancer.run(bytes(frame))
    assert packets.transport_sum(result.data) == packets.transport_sum(bytes(frame)) != 0xFFFF


@protocols
def test_ethernet_padding(nat: Nat, someone: Client, protocol: str) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    whole = connection.send(b"x")
    frame = bytes(connection.from_client(b"x"))
    packets.same(nat.balancer.run(frame + bytes(11)).data, whole + bytes(11))


@pytest.mark.parametrize("host", [NEAR[0], FAR[0], ROUTED], ids=["near", "far", "routed"])
@protocols
def test_backends_anywhere(balancer: plane.Balancer, host: Host, protocol: str) -> None:
    for family in FAMILIES:
        nat = Nat(balancer, family, (host,))
        connection = nat.connection(client(family), protocol)
        connection.send(**({"flags": "S"} if protocol == "tcp" else {}))
        connection.answer(**({"flags": "SA"} if protocol == "tcp" else {}))


def test_the_answer_came_in_elsewhere(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone).open()
    frame = bytes(connection.from_backend(b"data"))
    result = nat.balancer.run_bare(frame, ifindex=1)
    assert result.word == "REDIRECT"
    packets.same(result.data, connection.answer(b"data"))


def test_the_backend_s_port_is_the_service_s(balancer: plane.Balancer) -> None:
    for family in FAMILIES:
        nat = Nat(balancer, family, port=0)
        nat.connection(client(family)).open().talk()


def test_any_port(balancer: plane.Balancer) -> None:
    """Two connections that differ only in the service's port do not meet at the backend."""
    for family in FAMILIES:
        nat = Nat(balancer, family, port=0)
        balancer.service(1, VIPS[family], 0, tables.TCP, tables.NAT)
        ports = (1, 22, 8000, 65535)
        made = [Connection(nat, client(family), "tcp", 0, service_port=port) for port in ports]
        for connection in made:
            connection.open()
        for connection in made:
            connection.talk()


@pytest.mark.parametrize("flags", ["SA", "FA", "R", "RA", "F", "P", ""])
def test_no_connection(nat: Nat, someone: Client, flags: str) -> None:
    nat.connection(someone).refused("DROP_NO_CONNECTION", b"data", flags=flags)
    assert nat.sizes() == NONE
    assert nat.balancer.service_counters(1)[0] == 1


def test_a_repeated_syn(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone)
    for dummy in range(4):
        connection.send(flags="S", seq=100, ack=0)
    assert nat.sizes() == UNCONFIRMED
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    connection.send(flags="S", seq=100, ack=0)
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    connection.send(flags="A", seq=101, ack=SERVER_SEQUENCE + 1)
    assert nat.sizes() == CONFIRMED


def test_a_syn_within_a_connection(nat: Nat, someone: Client) -> None:
    """The backend will challenge it; the translation stays."""
    connection = nat.connection(someone).open()
    nat.ring(1)
    connection.send(flags="S", seq=9)
    connection.talk()
    assert nat.sizes() == CONFIRMED


@pytest.mark.parametrize("acknowledged", [0, 1, SERVER_SEQUENCE, SERVER_SEQUENCE + 2, 2**32 - 1])
def test_only_who_saw_the_answer_confirms(nat: Nat, someone: Client, acknowledged: int) -> None:
    connection = nat.connection(someone)
    connection.send(flags="S", seq=100, ack=0)
    connection.send(flags="A", ack=acknowledged)
    assert nat.sizes() == UNCONFIRMED
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    for flags in ("A", "PA", "FA", "RA"):
        connection.send(flags=flags, ack=acknowledged)
    assert nat.sizes() == UNCONFIRMED


def test_the_sequence_wraps(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone)
    connection.send(flags="S")
    connection.answer(flags="SA", seq=2**32 - 2)
    connection.send(flags="A", ack=2**32 - 1)
    assert nat.sizes() == CONFIRMED


@pytest.mark.parametrize("sequence", [2**32 - 1], ids=["to zero"])
def test_the_sequence_wraps_to_zero(nat: Nat, someone: Client, sequence: int) -> None:
    """Zero means that no SYN-ACK was seen: once in 2^32 connections one is confirmed late, or never;
    it works all the same."""
    connection = nat.connection(someone)
    connection.send(flags="S")
    connection.answer(flags="SA", seq=sequence)
    connection.send(flags="A", ack=0)
    connection.send(b"data", flags="PA", ack=0)
    connection.answer(b"data", flags="PA")


def test_data_acknowledges_too(nat: Nat, someone: Client) -> None:
    """The bare acknowledgement was lost; the client's first data says the same."""
    connection = nat.connection(someone)
    connection.send(flags="S", seq=100, ack=0)
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    connection.send(b"GET /", flags="PA", ack=SERVER_SEQUENCE + 1)
    assert nat.sizes() == CONFIRMED


def test_a_reset_by_the_backend(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone).open()
    connection.answer(flags="RA")
    entry = connection.entry()
    assert entry
    assert entry.state & RESET
    connection.port = 0
    connection.open().talk()


def test_a_refused_connection(nat: Nat, someone: Client) -> None:
    for dummy in range(3):
        connection = nat.connection(someone)
        connection.send(flags="S")
        connection.answer(flags="RA")
    connection = nat.connection(someone).open()
    connection.talk()


def test_a_reset_by_the_client(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone).open()
    connection.send(flags="R")
    connection.port = 0
    connection.open().talk()
    assert nat.sizes() == CONFIRMED


def test_a_forged_reset_hurts_nobody(nat: Nat, someone: Client) -> None:
    """Out of the window, the backend ignores it; so the translation has to stay."""
    connection = nat.connection(someone).open()
    connection.send(flags="R", seq=99)
    nat.ring(1)
    connection.talk()
    connection.talk()


def test_a_port_is_used_again(nat: Nat, someone: Client) -> None:
    """The next connection of the same ports goes where the ring says."""
    connection = nat.connection(someone).open()
    connection.talk()
    connection.close()
    nat.ring(1)
    again = nat.connection(someone, number=1).open()
    again.talk()
    again.close()
    assert nat.sizes()[:2] == (0, 1)
    nat.ring(0)
    nat.connection(someone, number=0).open().talk()


def test_half_closed(nat: Nat, someone: Client) -> None:
    for first in ("client", "backend"):
        connection = nat.connection(someone).open()
        (connection.send if first == "client" else connection.answer)(flags="FA")
        nat.ring(1)
        for dummy in range(3):
            connection.send(b"data", flags="PA")
            connection.answer(b"data", flags="PA")
        (connection.answer if first == "client" else connection.send)(flags="FA")
        nat.ring(0)


def test_idle_ends_a_flow(nat: Nat, someone: Client) -> None:
    """A SYN after idle_tcp begins anew, wherever the ring says; before, it does not."""
    connection = nat.connection(someone).open()
    nat.ring(1)
    nat.balancer.configure(idle_tcp=1000)
    connection.age(900)
    connection.send(flags="S")
    connection.age(1100)
    nat.connection(someone, number=1).open().talk()


def test_idle_ends_a_datagram_flow(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone, "udp")
    connection.send(b"question")
    connection.answer(b"answer")
    nat.ring(1, "udp")
    nat.balancer.configure(idle_udp=30)
    connection.age(25)
    connection.send(b"question")
    connection.age(35)
    again = nat.connection(someone, "udp", number=1)
    again.send(b"question")
    again.answer(b"answer")


@protocols
@pytest.mark.parametrize(
    ("state", "served"),
    [
        ({"state": tables.DRAINING}, True),
        ({"health": tables.DOWN}, True),
        ({"state": tables.DISABLED}, False),
    ],
    ids=["draining", "down", "disabled"],
)
def test_a_backend_leaves(
    nat: Nat, someone: Client, protocol: str, state: dict[str, int], served: bool
) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    else:
        connection.send()
        connection.answer()
    nat.state(0, protocol, **state)
    nat.ring(1, protocol)
    if served:
        connection.send(b"data")
        connection.answer(b"data")
    elif protocol == "tcp":
        connection.refused("DROP_NO_BACKEND", b"data")
    else:
        nat.connection(someone, protocol, number=1).send(b"data")
    newcomer = nat.connection(client(nat.family, 1), protocol, number=1)
    newcomer.send(**({"flags": "S"} if protocol == "tcp" else {}))


def test_a_backend_is_disabled_and_enabled_again(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone).open()
    nat.state(0, state=tables.DISABLED)
    connection.refused("DROP_NO_BACKEND")
    nat.state(0)
    connection.talk()


def test_a_syn_to_a_disabled_backend_goes_elsewhere(nat: Nat, someone: Client) -> None:
    nat.connection(someone).open()
    nat.state(0, state=tables.DISABLED)
    nat.ring(1)
    nat.connection(someone, number=1).open().talk()
