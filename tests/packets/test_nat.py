# SPDX-License-Identifier: GPL-3.0-or-later
"""nat: the life of a connection, both ways, byte for byte."""

from __future__ import annotations

import random
import struct

import expect
import packets
import plane
import pytest
import tables
from nat import SERVER_SEQUENCE, Connection, Nat
from network import (
    FAR,
    LOST_CLIENTS,
    NARROW,
    NARROW_CLIENTS,
    NEAR,
    ROUTED,
    SILENT,
    UNREACHABLE,
    Host,
)
from packets import FAMILIES, VIPS, Client, client
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw
from tables import BACKEND_FIN, CLIENT_FIN, OPEN, OPENING, RESET

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
CONFIRMED, UNCONFIRMED, NONE = (0, 1, 0, 1), (1, 0, 1, 0), (0, 0, 0, 0)


@pytest.fixture(params=FAMILIES)
def nat(request: pytest.FixtureRequest, balancer: plane.Balancer) -> Nat:
    return Nat(balancer, request.param)


@pytest.fixture
def someone(nat: Nat) -> Client:
    return client(nat.family)


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


@pytest.mark.parametrize("flags", ["A", "PA", "SA", "FA", "R", "RA", "F", ""])
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
    _age(nat, connection, 900)
    connection.send(flags="S")
    _age(nat, connection, 1100)
    nat.connection(someone, number=1).open().talk()


def test_idle_ends_a_datagram_flow(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone, "udp")
    connection.send(b"question")
    connection.answer(b"answer")
    nat.ring(1, "udp")
    nat.balancer.configure(idle_udp=30)
    _age(nat, connection, 25)
    connection.send(b"question")
    _age(nat, connection, 35)
    again = nat.connection(someone, "udp", number=1)
    again.send(b"question")
    again.answer(b"answer")


def _age(nat: Nat, connection: Connection, seconds: int) -> None:
    """Let both entries of a confirmed flow be that old."""
    seen = plane.u32(plane.seconds() - seconds)
    entry = nat.balancer.get("nat_flows", connection.key)
    origin = nat.balancer.get("nat_replies", connection.reply_key)
    assert entry
    assert origin
    nat.balancer.put("nat_flows", connection.key, entry[:4] + seen + entry[8:])
    nat.balancer.put("nat_replies", connection.reply_key, origin[:40] + seen)


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


def test_no_backend(nat: Nat, someone: Client) -> None:
    nat.balancer.ring(1, tables.slot(0))
    nat.connection(someone).refused("DROP_NO_BACKEND", flags="S")
    nat.balancer.ring(1, tables.slot(77))
    nat.connection(someone).refused("DROP_NO_BACKEND", flags="S")
    nat.balancer.ring(1, tables.slot(20))
    nat.connection(someone).refused("DROP_NO_BACKEND", flags="S")
    assert nat.sizes() == NONE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("host", "reason"), [(SILENT, "DROP_NO_NEIGHBOUR"), (UNREACHABLE, "DROP_NO_ROUTE")]
)
def test_no_way(balancer: plane.Balancer, family: int, host: Host, reason: str) -> None:
    nat = Nat(balancer, family, (host,))
    nat.connection(client(family)).refused(reason, flags="S")
    nat.connection(client(family), "udp").refused(reason)


@protocols
def test_no_hop_left(nat: Nat, someone: Client, protocol: str) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    else:
        connection.send()
    connection.send(b"data", ttl=2)
    connection.answer(b"data", ttl=2)
    for ttl in (0, 1):
        connection.refused("DROP_TTL", b"data", ttl=ttl)
        frame = bytes(connection.from_backend(b"data", ttl=ttl))
        assert nat.balancer.run(frame).word == "DROP"
    assert nat.balancer.reasons() == {"DROP_TTL": 4}


# answers that are none


@protocols
def test_answers_of_others(nat: Nat, someone: Client, protocol: str) -> None:
    """From another backend, another port, to another port, over another protocol."""
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    else:
        connection.send()
    other = {"tcp": "udp", "udp": "tcp"}[protocol]
    right = connection.port
    for wrong in (
        Connection(nat, someone, protocol, 1, port=right),
        Connection(nat, someone, protocol, 0, port=right + 1),
        Connection(nat, someone, protocol, 0, port=80),
        Connection(nat, someone, protocol, 0, port=40000),
        Connection(nat, someone, other, 0, port=right),
    ):
        wrong.unanswered(b"data")
    frame = connection.from_backend(b"data")
    frame.lastlayer().underlayer.sport = 8081
    result = nat.balancer.run(bytes(frame))
    assert (result.word, result.data) == ("PASS", bytes(frame))
    connection.answer(b"data")


def test_the_own_address_is_the_host_s(nat: Nat, someone: Client) -> None:
    """SSH to the balancer, at the address that nat uses."""
    nat.connection(someone).open()
    for port in (22, 1023, 32768, 65535, 1024, 32767):
        frame = bytes(someone.to("tcp", vip=nat.own, port=port, flags="S"))
        result = nat.balancer.run(frame)
        assert (result.word, result.data) == ("PASS", frame)


def test_without_nat_nobody_looks(nat: Nat, someone: Client) -> None:
    connection = nat.connection(someone).open()
    nat.balancer.configure(flags=tables.FILTER)
    connection.unanswered(b"data")


@protocols
def test_answers_that_were_cut(nat: Nat, someone: Client, protocol: str) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    else:
        connection.send()
    frame = bytes(connection.from_backend(b"data" * 5))
    for size in range(14, len(frame)):
        result = nat.balancer.run(frame[:size])
        assert (result.word, result.data) == ("PASS", frame[:size])


@protocols
def test_requests_that_were_cut(nat: Nat, someone: Client, protocol: str) -> None:
    connection = nat.connection(someone, protocol)
    if protocol == "tcp":
        connection.open()
    frame = bytes(connection.from_client(b"data" * 5))
    for size in range(14, len(frame)):
        result = nat.balancer.run(frame[:size])
        assert (result.word, result.data) == ("PASS", frame[:size])


# ports


@pytest.mark.parametrize("ports", [(20000, 20000), (65535, 65535), (1, 1)])
def test_a_single_port(nat: Nat, ports: tuple[int, int]) -> None:
    """One connection to each backend; a second one to the same finds no port."""
    nat.balancer.configure(nat_ports=ports)
    first = nat.connection(client(nat.family, 0)).open()
    assert first.port == ports[0]
    nat.connection(client(nat.family, 1)).refused("DROP_NO_PORT", flags="S")
    nat.ring(1)
    other = nat.connection(client(nat.family, 1), number=1).open()
    datagrams = nat.connection(client(nat.family, 1), "udp")
    datagrams.send()
    datagrams.answer()
    first.talk()
    other.talk()
    first.close()
    assert nat.balancer.reasons() == {"DROP_NO_PORT": 1}


def test_a_port_is_free_again_after_a_while(nat: Nat) -> None:
    nat.balancer.configure(nat_ports=(20000, 20000))
    first = nat.connection(client(nat.family, 0)).open()
    first.close()
    _age(nat, first, 61)
    second = nat.connection(client(nat.family, 1)).open()
    assert second.port == 20000
    second.talk()
    first.port = 0
    first.refused("DROP_NO_CONNECTION", b"late", flags="PA")
    second.talk()


def test_an_idle_flow_s_port_is_free(nat: Nat) -> None:
    nat.balancer.configure(nat_ports=(20000, 20000), idle_tcp=500)
    first = nat.connection(client(nat.family, 0)).open()
    _age(nat, first, 400)
    nat.connection(client(nat.family, 1)).refused("DROP_NO_PORT", flags="S")
    _age(nat, first, 501)
    nat.connection(client(nat.family, 1)).open().talk()


@protocols
def test_many_connections_do_not_meet(nat: Nat, protocol: str) -> None:
    """A thousand to one backend: each has a port of its own, and answers find their client."""
    flags = {"flags": "S"} if protocol == "tcp" else {}
    frame = bytes(client(nat.family).to(protocol, **flags))
    at = {4: 34, 6: 54}[nat.family]
    ports = []
    for number in range(2000, 3000):
        result = nat.balancer.run(frame[:at] + struct.pack("!H", number) + frame[at + 2 :])
        assert result.word == "TX"
        ports.append(struct.unpack_from("!H", result.data, at)[0])
    assert len(set(ports)) == len(ports)
    for number in range(0, 1000, 50):
        who = client(nat.family, 0, 2000 + number)
        connection = Connection(nat, who, protocol, 0, port=ports[number])
        connection.answer(**({"flags": "SA"} if protocol == "tcp" else {}))


def test_too_many_connections_are_dropped(nat: Nat) -> None:
    """A range that is full never gives a port to two flows."""
    nat.balancer.configure(nat_ports=(20000, 20031))
    ports = []
    # Made before: a port whose flow nobody confirms may be another's after two seconds.
    frames = [bytes(client(nat.family, 0, 1000 + number).to("udp", b"x")) for number in range(200)]
    for frame in frames:
        result = nat.balancer.run(frame)
        if result.word == "TX":
            at = {4: 34, 6: 54}[nat.family]
            ports.append(struct.unpack_from("!H", result.data, at)[0])
    assert len(ports) == len(set(ports)) <= 32
    assert len(ports) > 24
    assert nat.balancer.reasons() == {"DROP_NO_PORT": 200 - len(ports)}


# lengths


@pytest.mark.parametrize("family", FAMILIES)
def test_too_big_for_the_backend(balancer: plane.Balancer, family: int) -> None:
    nat = Nat(balancer, family, (NARROW,))
    connection = nat.connection(client(family)).open()
    headers = {4: 40, 6: 60}[family]
    connection.send(bytes(1400 - headers))
    frame = connection.from_client(bytes(1401 - headers))
    result = nat.balancer.run(bytes(frame))
    assert result.word == "TX"
    message = packets.parsed(result.data)
    assert message.payload.src == VIPS[family]
    assert message.payload.dst == client(family).address
    assert nat.balancer.reasons() == {"TOO_BIG_SENT": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_too_big_for_the_client(balancer: plane.Balancer, family: int) -> None:
    """The backend hears of it, from the address that it knows."""
    nat = Nat(balancer, family)
    connection = nat.connection(Client(family, NARROW_CLIENTS[family])).open()
    headers = {4: 40, 6: 60}[family]
    connection.answer(bytes(1400 - headers))
    frame = connection.from_backend(bytes(1401 - headers))
    result = balancer.run(bytes(frame))
    assert result.word == "TX"
    assert result.data[:6].hex(":") == connection.host.mac
    message = packets.network_layer(packets.parsed(result.data))
    assert (message.src, message.dst) == (nat.own, connection.backend[0])
    assert packets.transport_sum(result.data) == 0xFFFF
    assert balancer.reasons() == {"TOO_BIG_SENT": 1}


@pytest.mark.parametrize("family", FAMILIES)
def test_no_way_to_the_client(balancer: plane.Balancer, family: int) -> None:
    nat = Nat(balancer, family)
    connection = nat.connection(Client(family, LOST_CLIENTS[family]))
    connection.send(flags="S")
    assert balancer.run(bytes(connection.from_backend(flags="SA"))).word == "DROP"
    assert balancer.reasons() == {"DROP_NO_ROUTE": 1}
    assert balancer.service_counters(1)[0] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_own_address_is_a_vip_too(balancer: plane.Balancer, family: int) -> None:
    """One address for everything: answers, services on ports within nat's range, and echo."""
    balancer.configure(**{f"source{family}": VIPS[family]})
    nat = Nat(balancer, family)
    balancer.service(3, VIPS[family], 0, tables.TCP, tables.DSR)
    balancer.backend(30, 3, FAR[0], family)
    balancer.ring(3, tables.slot(30))
    connection = nat.connection(client(family)).open()
    connection.talk()
    frame = bytes(client(family).to("tcp", port=2000))
    expect.forwarded(balancer, expect.STATELESS[family == 6], frame, balancer.run(frame), FAR[0])
    echo = ICMP() if family == 4 else ICMPv6EchoRequest()
    network = packets.ip_layer(family, client(family).address, VIPS[family])
    assert balancer.run(bytes(packets.from_router(network / echo))).word == "TX"
    assert balancer.reasons() == {"ECHO_REPLIED": 1}


def test_counters(nat: Nat, someone: Client) -> None:
    """To the backend, as the client sent it; answers are not counted."""
    nat.connection(someone).open()
    header = {4: 40, 6: 60}[nat.family]
    assert nat.balancer.backend_counters(10) == (2, 2 * header, 1)
    nat.connection(someone, "udp").send(b"question")
    assert nat.balancer.backend_counters(20) == (1, header - 12 + 8, 1)
    assert nat.balancer.backend_counters(11) == (0, 0, 0)
    assert nat.balancer.service_counters(1) == (0, 0, 0)


def test_ipv6_extension_headers(balancer: plane.Balancer) -> None:
    nat = Nat(balancer, 6)
    network = IPv6(src=packets.CLIENTS[6], dst=VIPS[6]) / IPv6ExtHdrDestOpt()
    for transport, verdict in (
        (TCP(sport=40000, dport=80, flags="S"), "TX"),
        (UDP(sport=40000, dport=80), "TX"),
    ):
        frame = bytes(packets.from_router(network / transport / Raw(b"data")))
        result = balancer.run(frame)
        assert result.word == verdict
        assert packets.transport_sum(result.data) == 0xFFFF
        made = packets.parsed(result.data)
        assert made[IPv6].dst == NEAR[0].ipv6
        assert made[type(transport)].dport == nat.port


def test_expected_bytes_are_scapy_s_own() -> None:
    """The suite's own sums agree with scapy's."""
    for family in FAMILIES:
        for protocol in ("tcp", "udp"):
            frame = bytes(client(family).to(protocol, b"odd"))
            assert packets.transport_sum(frame) == 0xFFFF
    assert expect.ip_length(bytes(client(4).to("tcp", b"abc"))) == 43
