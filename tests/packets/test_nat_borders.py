# SPDX-License-Identifier: GPL-3.0-or-later
"""nat at its borders: answers of nobody, ports, lengths, addresses."""

from __future__ import annotations

import struct

import expect
import packets
import plane
import pytest
import tables
from nat import Connection, Nat
from network import (
    FAR,
    LOST_CLIENTS,
    NARROW,
    NARROW_CLIENTS,
    NEAR,
    SILENT,
    UNREACHABLE,
    Host,
)
from packets import FAMILIES, VIPS, Client, client
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])
NONE = (0, 0, 0, 0)


# nowhere to go


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
    first.age(61)
    second = nat.connection(client(nat.family, 1)).open()
    assert second.port == 20000
    second.talk()
    first.port = 0
    first.refused("DROP_NO_CONNECTION", b"late", flags="PA")
    second.talk()


def test_an_idle_flow_s_port_is_free(nat: Nat) -> None:
    nat.balancer.configure(nat_ports=(20000, 20000), idle_tcp=500)
    first = nat.connection(client(nat.family, 0)).open()
    first.age(400)
    nat.connection(client(nat.family, 1)).refused("DROP_NO_PORT", flags="S")
    first.age(501)
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
