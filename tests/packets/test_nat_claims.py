# SPDX-License-Identifier: GPL-3.0-or-later
"""nat: half-open connections that a flood has evicted go on, if the backend knows of them."""

from __future__ import annotations

import struct

import pytest
from conftest import Load
from nat import SERVER_SEQUENCE, Connection, Nat
from packets import Client, client
from tables import CLAIMED, OPEN
from test_flood import flood

CONFIRMED, UNCONFIRMED = (0, 1, 0, 1), (1, 0, 1, 0)
NEXT = SERVER_SEQUENCE + 1
GET = b"GET / HTTP/1.0\r\n\r\n"
ROOM = 1024
TABLES = {"nat_opening": ROOM, "nat_replies_opening": ROOM}


def evicted(nat: Nat, someone: Client) -> Connection:
    """A connection whose client has the SYN-ACK; the tables know nothing of it."""
    connection = nat.connection(someone)
    connection.send(flags="S", seq=100, ack=0)
    connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
    nat.balancer.drop("nat_opening", connection.key)
    nat.balancer.drop("nat_replies_opening", connection.reply_key)
    assert not connection.entry("nat_opening")
    return connection


@pytest.mark.parametrize("flags", ["A", "PA"])
def test_a_handshake_goes_on(nat: Nat, someone: Client, flags: str) -> None:
    """By the same port to the same backend, whose answer confirms it."""
    connection = evicted(nat, someone)
    connection.send(GET, flags=flags, seq=101, ack=NEXT)
    entry = connection.entry("nat_opening")
    assert entry
    assert (entry.port, entry.state, entry.server_sequence) == (connection.port, CLAIMED, NEXT)
    connection.answer(flags="A", seq=NEXT, ack=101 + len(GET))
    assert nat.sizes() == CONFIRMED
    entry = connection.entry()
    assert entry
    assert entry.state == OPEN
    connection.talk()
    connection.close()
    assert nat.balancer.reasons() == {}


def test_a_whole_answer_confirms(nat: Nat, someone: Client) -> None:
    connection = evicted(nat, someone)
    connection.send(GET, flags="PA", seq=101, ack=NEXT)
    connection.answer(b"HTTP/1.0 200 OK\r\n\r\n", flags="FPA", seq=NEXT, ack=101 + len(GET))
    assert nat.sizes() == CONFIRMED
    connection.send(flags="FA", seq=101 + len(GET), ack=NEXT + 20)


@pytest.mark.parametrize("acknowledged", [0, 1, NEXT, 2**32 - 1])
def test_a_client_alone_confirms_nothing(nat: Nat, someone: Client, acknowledged: int) -> None:
    connection = nat.connection(someone)
    for flags in ("A", "PA", "A", "FA"):
        connection.send(flags=flags, ack=acknowledged)
    assert nat.sizes() == UNCONFIRMED


@pytest.mark.parametrize("flags", ["SA", "RA", "R", "A", "PA", "FA"])
def test_what_nobody_acknowledged_confirms_nothing(nat: Nat, someone: Client, flags: str) -> None:
    """A challenge, a reset, a SYN-ACK of a half-open connection with the same port: all reach the client."""
    connection = nat.connection(someone)
    connection.send(flags="A", ack=NEXT)
    connection.answer(flags=flags, seq=NEXT + 1)
    connection.send(flags="A", ack=NEXT + 2)
    assert nat.sizes() == UNCONFIRMED


@pytest.mark.parametrize("flags", ["SA", "RA", "R"])
def test_nor_does_the_right_number(nat: Nat, someone: Client, flags: str) -> None:
    """In a packet with which no backend goes on."""
    connection = nat.connection(someone)
    connection.send(flags="A", ack=NEXT)
    connection.answer(flags=flags, seq=NEXT)
    assert nat.sizes() == UNCONFIRMED


@pytest.mark.parametrize("acknowledged", [NEXT, NEXT - 1])
def test_a_syn_begins_anew(nat: Nat, someone: Client, acknowledged: int) -> None:
    """A guess made before it is worth nothing."""
    connection = nat.connection(someone)
    connection.send(flags="A", ack=acknowledged)
    nat.ring(1)
    connection = nat.connection(someone, number=1)
    connection.send(flags="S", seq=100, ack=0)
    connection.send(flags="A", ack=acknowledged)
    assert nat.sizes() == UNCONFIRMED
    entry = connection.entry("nat_opening")
    assert entry
    assert (entry.state, entry.server_sequence) == (0, 0)
    connection.open().talk()
    assert nat.sizes() == CONFIRMED


def test_a_reset_ends_the_claim(nat: Nat, someone: Client) -> None:
    """The backend knows of no such connection, and so does the client now: it may begin one."""
    connection = nat.connection(someone)
    connection.send(GET, flags="PA", ack=NEXT)
    connection.answer(flags="R", seq=NEXT)
    connection.open().talk()


def test_other_half_open_ones_make_room(nat: Nat, someone: Client) -> None:
    """A flood's connection has got the port meanwhile; who goes on is the one that the backend answers."""
    nat.balancer.configure(nat_ports=(20000, 20000))
    connection = evicted(nat, someone)
    other = nat.connection(client(nat.family, 1))
    other.send(flags="S")
    connection.send(flags="A", seq=101, ack=NEXT)
    other.send(flags="A", ack=5)  # which is claimed as well, and answered by nobody
    connection.send(GET, flags="PA", seq=101, ack=NEXT)
    connection.answer(flags="A", seq=NEXT, ack=119)
    assert nat.sizes() == CONFIRMED
    other.refused("DROP_NO_CONNECTION", flags="A", ack=5)
    connection.talk()


def test_second_choices(nat: Nat) -> None:
    """Where two ports in three are taken, many get another than their first, and claim that one."""
    nat.balancer.configure(nat_ports=(20000, 20063))
    for number in range(40):
        connection = evicted(nat, client(nat.family, 1, 2000 + number))
        connection.send(GET, flags="PA", seq=101, ack=NEXT)
        connection.answer(flags="A", seq=NEXT, ack=101 + len(GET))
    assert nat.sizes() == (0, 40, 0, 40)


def test_live_ones_keep_their_port(nat: Nat, someone: Client) -> None:
    nat.balancer.configure(nat_ports=(20000, 20000))
    live = nat.connection(client(nat.family, 1)).open()
    nat.connection(someone).refused("DROP_NO_CONNECTION", flags="A", ack=NEXT)
    live.talk()
    live.close()
    live.age(30)  # the backend may still keep TIME_WAIT
    nat.connection(someone).refused("DROP_NO_CONNECTION", flags="A", ack=NEXT)
    live.age(70)
    nat.connection(someone).send(flags="A", ack=NEXT)


def test_a_flood_of_syns_costs_no_handshake(load: Load) -> None:
    """Tables far too small for the flood: whoever has the SYN-ACK gets through, by its own port."""
    with load(**TABLES) as balancer:
        balancer.configure()
        nat = Nat(balancer, 4)
        opening = [nat.connection(client(4, 0, 2000 + at)) for at in range(300)]
        for connection in opening:
            connection.send(flags="S", seq=100, ack=0)
            connection.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
        for frame in flood(4, "tcp", 5, 8 * ROOM):
            balancer.run(frame)
            balancer.run(frame)  # or the table would prefer what was looked at twice
        # each CPU keeps its latest entries apart for a while
        left = sum(1 for connection in opening if connection.entry("nat_opening"))
        assert left < len(opening) / 2
        for connection in opening:
            connection.send(GET, flags="PA", seq=101, ack=NEXT)
            connection.answer(flags="A", seq=NEXT, ack=101 + len(GET))
        assert balancer.size("nat_flows") == len(opening)
        for connection in opening:
            connection.talk()


def test_a_flood_of_acknowledgements(load: Load) -> None:
    """It fills what a flood of SYNs fills, and no more: live connections stay, new ones are opened."""
    with load(**TABLES) as balancer:
        balancer.configure()
        nat = Nat(balancer, 4)
        live = [nat.connection(client(4, 0, 2000 + at)).open() for at in range(100)]
        for number, frame in enumerate(flood(4, "tcp", 6, 8 * ROOM)):
            packet = bytearray(frame)
            struct.pack_into("!B", packet, 47, 0x10)
            assert balancer.run(bytes(packet)).word in ("TX", "DROP")
            if number % ROOM == 0:
                nat.connection(client(4, 2, 3000 + number)).open().talk()
        for connection in live:
            connection.talk()
        assert balancer.size("nat_flows") == balancer.size("nat_replies") == len(live) + 8
        assert set(balancer.reasons()) <= {"DROP_NO_CONNECTION"}
