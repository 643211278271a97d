# SPDX-License-Identifier: GPL-3.0-or-later
"""200,000 first packets of random sources: who has a connection does not notice."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Iterator

import plane
import pytest
from conftest import Load
from expect import STATELESS
from nat import Nat
from packets import client
from test_moved import NEW, OLD, Moved

FLOOD = 200_000
LIVE = 100


def flood(family: int, protocol: str, seed: int, count: int = FLOOD) -> Iterator[bytes]:
    """First packets of random clients, with checksums that are not theirs: nobody looks."""
    chance = random.Random(seed)
    fields = {"flags": "S"} if protocol == "tcp" else {}
    frame = bytes(client(family).to(protocol, **fields))
    start, end, transport = {4: (26, 30, 34), 6: (22, 38, 54)}[family]
    size = end - start
    for dummy in range(count):
        noise = chance.randbytes(size + 2)
        source, port = noise[:size], noise[size:]
        yield frame[:start] + source + frame[end:transport] + port + frame[transport + 2 :]


@pytest.mark.parametrize(("family", "syns"), [(4, FLOOD), (6, FLOOD // 4)])
def test_confirmed_translations_survive(load: Load, family: int, syns: int) -> None:
    with load() as balancer:
        balancer.configure()
        nat = Nat(balancer, family)
        live = [nat.connection(client(family, 0, 2000 + at)).open() for at in range(LIVE)]
        asking = [nat.connection(client(family, 1, 2000 + at), "udp") for at in range(LIVE)]
        for connection in asking:
            connection.send(b"question")
            connection.answer(b"answer")
        assert balancer.size("nat_flows") == 2 * LIVE
        verdicts: Counter[str] = Counter()
        for protocol, count in (("tcp", syns), ("udp", FLOOD // 10)):
            for frame in flood(family, protocol, 1, count):
                verdicts[balancer.run(frame).word] += 1
        assert set(verdicts) <= {"TX", "DROP"}, verdicts
        assert verdicts["TX"] > 1000
        assert set(balancer.reasons()) <= {"DROP_NO_PORT"}
        assert balancer.size("nat_flows") == balancer.size("nat_replies") == 2 * LIVE
        for connection in live:
            connection.talk()
        for connection in asking:
            connection.answer(b"answer")
            connection.send(b"question")
        nat.connection(client(family, 2)).open().talk()  # and somebody new gets through


def test_connections_in_moved_slots_survive(load: Load) -> None:
    with load() as balancer:
        balancer.configure()
        moved = Moved(balancer, STATELESS[0])
        fresh = [client(4, 0, 2000 + at) for at in range(LIVE)]
        old = [client(4, 1, 2000 + at) for at in range(LIVE)]
        for who in fresh:
            moved.tcp(NEW, "S", who=who)
            moved.tcp(NEW, "A", who=who)
        for who in old:
            moved.tcp(OLD, "A", who=who)
        before = moved.sizes()
        for frame in flood(4, "tcp", 2):
            assert balancer.run(frame).verdict == plane.TX
        after = moved.sizes()
        assert after["flows"] == before["flows"] == LIVE
        assert after["flows_leaving"] == before["flows_leaving"] == LIVE
        for who in fresh:
            moved.tcp(NEW, "A", who=who)
        for who in old:
            moved.tcp(OLD, "A", who=who)
        assert balancer.reasons() == {}


def test_a_settled_ring_has_nothing_to_fill(load: Load) -> None:
    with load() as balancer:
        balancer.configure()
        moved = Moved(balancer, STATELESS[0])
        moved.move(NEW, 0)
        for frame in flood(4, "tcp", 3, 10_000):
            assert balancer.run(frame).verdict == plane.TX
        assert set(moved.sizes().values()) == {0}
        assert balancer.backend_counters(NEW) == (10_000, 400_000, 10_000)


def test_acknowledgements_of_nobody(load: Load) -> None:
    """A flood of other packets fills only the table that heals itself."""
    with load(flows_leaving=1024) as balancer:
        balancer.configure()
        moved = Moved(balancer, STATELESS[0])
        live = [client(4, 0, 2000 + at) for at in range(LIVE)]
        for who in live:
            moved.tcp(NEW, "S", who=who)
            moved.tcp(NEW, "A", who=who)
        for frame in flood(4, "tcp", 4, 20_000):
            packet = bytearray(frame)
            struct.pack_into("!B", packet, 47, 0x10)
            assert balancer.run(bytes(packet)).verdict == plane.TX
        for who in live:
            moved.tcp(NEW, "A", who=who)
