# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backend: always the same for a flow, on every balancer, and every slot has its share."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Iterator

import packets
import plane
import pytest
import tables
from conftest import Load
from expect import STATELESS, Mode
from network import FAR, NEAR
from packets import PORT, VIPS, client

HOSTS = (*NEAR, *FAR)
MODES = (STATELESS[0], STATELESS[1])
FLOWS = 10_000


def alternating() -> bytes:
    """A ring in which neighbouring slots name different backends."""
    return b"".join(tables.slot(1 + at % len(HOSTS)) for at in range(tables.RING_SLOTS))


def serve(balancer: plane.Balancer, mode: Mode, flags: int = 0) -> None:
    for service, protocol in ((1, tables.TCP), (2, tables.UDP)):
        balancer.service(service, VIPS[mode.family], PORT, protocol, mode.forwarding, flags)
    for number, host in enumerate(HOSTS):
        balancer.backend(1 + number, 1, host, mode.backends)
    balancer.ring(1, alternating())


def flows(family: int, seed: int, count: int) -> Iterator[bytes]:
    """One packet each of random clients: patched bytes, as scapy takes its time."""
    chance = random.Random(seed)
    frame = bytes(client(family).to("tcp", flags="S"))
    for dummy in range(count):
        size = {4: 4, 6: 16}[family]
        address, port = chance.randbytes(size), struct.pack("!H", chance.randrange(1, 65536))
        at, transport = {4: (26, 34), 6: (22, 54)}[family]
        yield (frame[:at] + address + frame[at + size : transport] + port + frame[transport + 2 :])


def backend_of(balancer: plane.Balancer, frame: bytes) -> bytes:
    """Every host has a link-layer address of its own."""
    result = balancer.run(frame)
    assert result.verdict in (plane.TX, plane.REDIRECT), result.word
    return result.data[:6]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_two_balancers_choose_the_same(balancer: plane.Balancer, load: Load, mode: Mode) -> None:
    """Another one, with the services under other ids, takes over every flow of this one."""
    serve(balancer, mode)
    with load() as other:
        other.configure(source4="192.0.2.2", source6="2001:db8::2")
        other.service(7, VIPS[mode.family], PORT, tables.TCP, mode.forwarding)
        for number, host in enumerate(HOSTS):
            other.backend(100 + number, 7, host, mode.backends)
        slots = [100 + at % len(HOSTS) for at in range(tables.RING_SLOTS)]
        other.ring(7, b"".join(tables.slot(backend) for backend in slots))
        for frame in flows(mode.family, 1, FLOWS):
            assert backend_of(balancer, frame) == backend_of(other, frame), frame.hex()


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_flow_stays(balancer: plane.Balancer, mode: Mode) -> None:
    """Whatever its packets carry, and whatever came in between."""
    serve(balancer, mode)
    someone = client(mode.family)
    first = backend_of(balancer, bytes(someone.to("tcp", flags="S")))
    for frame in flows(mode.family, 2, 500):
        backend_of(balancer, frame)
    for fields in (
        {"flags": "A"},
        {"seq": 7},
        {"flags": "FA"},
        {"window": 1},
        {"payload": b"x" * 99},
    ):
        payload = fields.pop("payload", b"")
        assert backend_of(balancer, bytes(someone.to("tcp", payload, **fields))) == first
    assert backend_of(balancer, bytes(someone.to("tcp", ttl=9))) == first


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_backend_has_its_share(balancer: plane.Balancer, mode: Mode) -> None:
    """As many as a fair die would give: 16 equal backends, chi-squared below its 99.99 % point."""
    serve(balancer, mode)
    counts = Counter(backend_of(balancer, frame) for frame in flows(mode.family, 3, FLOWS))
    fair = FLOWS / len(HOSTS)
    assert len(counts) == len(HOSTS)
    assert sum((count - fair) ** 2 / fair for count in counts.values()) < 44.3


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_clients_in_a_row_are_spread(balancer: plane.Balancer, mode: Mode) -> None:
    """Neighbouring addresses and ports, as real clients have, are no worse than random ones."""
    serve(balancer, mode)
    start = int(ipaddress.ip_address(packets.CLIENTS[mode.family]))
    kind = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[mode.family]
    ports, addresses = Counter(), Counter()
    frame = bytes(client(mode.family).to("tcp"))
    at, transport = {4: (26, 34), 6: (22, 54)}[mode.family]
    for step in range(4000):
        with_port = frame[:transport] + struct.pack("!H", 20000 + step) + frame[transport + 2 :]
        ports[backend_of(balancer, with_port)] += 1
        address = kind(start + step).packed
        addresses[backend_of(balancer, frame[:at] + address + frame[at + len(address) :])] += 1
    for counts in (ports, addresses):
        fair = 4000 / len(HOSTS)
        assert sum((count - fair) ** 2 / fair for count in counts.values()) < 44.3, counts


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_affinity_by_source(balancer: plane.Balancer, mode: Mode) -> None:
    """All ports of a client go to one backend; clients still differ."""
    serve(balancer, mode, tables.BY_SOURCE)
    seen = set()
    for number in range(3):
        someone = [client(mode.family, number, port) for port in range(1024, 65536, 997)]
        chosen = {backend_of(balancer, bytes(each.to("tcp"))) for each in someone}
        assert len(chosen) == 1
        seen |= chosen
    clients = {backend_of(balancer, frame) for frame in flows(mode.family, 4, 300)}
    assert len(clients) == len(HOSTS)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_without_affinity_the_port_counts(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    someone = [client(mode.family, 0, port) for port in range(1024, 65536, 997)]
    assert len({backend_of(balancer, bytes(each.to("tcp"))) for each in someone}) > 10


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_every_slot_is_used(balancer: plane.Balancer, mode: Mode) -> None:
    """One slot in 16 is empty: about one flow in 16 finds no backend."""
    serve(balancer, mode)
    holes = [0 if at % 16 == 5 else 1 for at in range(tables.RING_SLOTS)]
    balancer.ring(1, b"".join(tables.slot(backend) for backend in holes))
    verdicts = Counter(balancer.run(frame).word for frame in flows(mode.family, 5, 4000))
    assert set(verdicts) == {"DROP", "TX"}
    assert abs(verdicts["DROP"] - 250) < 75


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_a_ring_is_replaced_whole(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    frame = bytes(client(mode.family).to("tcp"))
    for number, host in enumerate(HOSTS):
        balancer.ring(1, tables.slot(1 + number), replace_map=True)
        assert backend_of(balancer, frame).hex(":") == host.mac
