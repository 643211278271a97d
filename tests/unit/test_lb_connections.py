# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of connections, read from real tables."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from array import array
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, map_contents, maps
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Fd
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import connections, layout, moves
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.layout_flows import (
    Flow,
    FlowEntry,
    NatEntry,
    NatOrigin,
    NatReply,
)

ENTRIES = 131072
NOW = 10_000
SETTINGS = layout.Settings(layout=1, idle_tcp=300, idle_udp=30, udp_grace=10)
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
OPEN, FIN, RESET = layout.FLOW_OPEN, layout.FLOW_CLIENT_FIN, layout.FLOW_RESET
BACKEND_FIN = layout.FLOW_BACKEND_FIN


@pytest.fixture
def tables() -> Iterator[dict[str, Fd]]:
    with contextlib.ExitStack() as stack:
        found = {}
        for name in connections.TABLES:
            kind, key_size, value_size = layout.MAPS[name]
            fd = maps.create(kind, key_size, value_size, ENTRIES, name=name)
            layout.check(name, info.map_(fd))
            found[name] = stack.enter_context(fd)
        yield found


def flow(number: int, service: int = 1) -> bytes:
    client = (0x0A000000 + number).to_bytes(4, "big") + bytes(12)
    return Flow(client, 1024 + number % 60000, 80, service).pack()


def entry(backend: int, slot: int = 0, silent: int = 0, state: int = OPEN) -> bytes:
    return FlowEntry(backend, slot, NOW - silent, state).pack()


def nat(backend: int, silent: int = 0, state: int = OPEN, protocol: int = TCP) -> bytes:
    return NatEntry(backend, NOW - silent, 1, 2000, state, protocol).pack()


def write(table: Fd, values: list[bytes], service: int = 1) -> None:
    for number, value in enumerate(values):
        maps.update(table, flow(number, service), value)


def count(tables: dict[str, Fd], udp: tuple[int, ...] = ()) -> connections.Live:
    return connections.count(tables, SETTINGS, NOW, udp)


def test_nobody_is_there(tables: dict[str, Fd]) -> None:
    assert count(tables) == connections.Live({}, frozenset())
    assert count({}) == connections.Live({}, frozenset())


def test_moved_flows_count_until_they_end_or_fall_silent(tables: dict[str, Fd]) -> None:
    write(
        tables["flows"],
        [
            entry(1, 10),
            entry(1, 11, silent=300),
            entry(1, 12, silent=301),
            entry(1, 13, state=OPEN | RESET),
            entry(2, 14, state=OPEN | FIN),
            entry(2, 15, silent=connections.CLOSING, state=OPEN | FIN),
            entry(2, 16, silent=connections.FORGOTTEN, state=OPEN | FIN),
            entry(3, 17, silent=-2),
        ],
    )
    write(tables["flows_leaving"], [entry(4, 18), entry(4, 18), entry(1, 19)], service=2)
    live = count(tables)
    assert live.by_backend == {1: 3, 2: 1, 3: 1, 4: 2}
    assert live.places == {
        (1, 10, 1),
        (1, 11, 1),
        (1, 14, 2),
        (1, 15, 2),
        (1, 17, 3),
        (2, 18, 4),
        (2, 19, 1),
    }


def test_datagrams_fall_silent_sooner(tables: dict[str, Fd]) -> None:
    write(tables["flows_leaving"], [entry(1, silent=30), entry(1, silent=31)])
    assert count(tables, udp=(1,)).by_backend == {1: 1}
    assert count(tables, udp=(2,)).by_backend == {1: 2}


def test_nat_flows_count_until_both_ends_have_finished(tables: dict[str, Fd]) -> None:
    write(
        tables["nat_flows"],
        [
            nat(1),
            nat(1, state=OPEN | FIN),
            nat(1, state=OPEN | BACKEND_FIN),
            nat(1, state=OPEN | FIN | BACKEND_FIN),
            nat(1, state=OPEN | RESET),
            nat(2, silent=31, protocol=UDP),
            nat(2, silent=30, protocol=UDP),
            nat(2, silent=301),
        ],
    )
    assert count(tables).by_backend == {1: 3, 2: 1}
    assert count(tables).places == frozenset()


def test_a_backend_that_speaks_keeps_its_nat_flow(tables: dict[str, Fd]) -> None:
    write(tables["nat_flows"], [nat(1, silent=301), nat(2, silent=301), nat(3, 31, OPEN, UDP)])
    for number, silent in enumerate((0, 301, 30)):
        reply = NatReply(ipaddress.IPv4Address("10.0.0.9"), 80, 2000 + number, TCP)
        origin = NatOrigin(Flow.unpack(flow(number)), bytes(16), NOW - silent)
        maps.update(tables["nat_replies"], reply.pack(), origin.pack())
    assert count(tables).by_backend == {1: 1, 3: 1}


def test_slots_are_settled_when_nobody_is_left_elsewhere(tables: dict[str, Fd]) -> None:
    backends = array("H", [2]) * layout.RING_SLOTS
    previous = array("H", bytes(2 * layout.RING_SLOTS))
    previous[10:20] = array("H", [1]) * 10
    ring = moves.Ring(backends, previous, NOW - 302)
    write(tables["flows_leaving"], [entry(1, 10), entry(1, 11, silent=301)])
    write(tables["flows"], [entry(2, 12), entry(3, 13)])
    write(tables["flows"], [entry(1, 14)], service=2)
    live = count(tables)
    settled = connections.settleable(ring, 1, live, SETTINGS, NOW)
    assert list(settled) == [11, 12, 14, 15, 16, 17, 18, 19]
    for young in (NOW, NOW - 301, NOW + 5):
        assert not connections.settleable(replace(ring, moved=young), 1, live, SETTINGS, NOW)
    datagrams = connections.settleable(replace(ring, moved=NOW - 32), 1, live, SETTINGS, NOW, True)
    assert datagrams == settled


def test_the_clock_may_wrap(tables: dict[str, Fd]) -> None:
    maps.update(tables["flows"], flow(1), FlowEntry(1, 2, 0xFFFFFFF0, OPEN).pack())
    assert connections.count(tables, SETTINGS, 0x10).by_backend == {1: 1}
    assert connections.count(tables, SETTINGS, 0x1000).by_backend == {}


def test_what_is_settled_or_gone_is_forgotten(tables: dict[str, Fd]) -> None:
    write(tables["flows"], [entry(1, 10), entry(1, 11), entry(2, 12)])
    write(tables["flows_leaving"], [entry(1, 10), entry(1, 10)], service=2)
    write(tables["nat_flows"], [nat(1), nat(2)])
    assert connections.forget(tables, service=1, slots=[10]) == 1
    assert connections.forget(tables, service=1, slots=[10]) == 0
    assert count(tables).by_backend == {1: 4, 2: 2}
    assert connections.forget(tables, backends=[1]) == 4
    assert count(tables).by_backend == {2: 2}


@pytest.mark.parametrize("name", ["flows", "nat_flows"])
def test_a_full_table_is_counted_in_well_under_a_second(tables: dict[str, Fd], name: str) -> None:
    values = [
        (flow(number), entry(1 + number % 50, number % 60000) if name == "flows" else nat(7))
        for number in range(100_000)
    ]
    maps.update_all(tables[name], values)
    there = sum(1 for _item in map_contents.items(tables[name], info.map_(tables[name])))
    assert there > 90_000  # an LRU table may have given up some
    start = time.process_time()
    live = count(tables)
    assert time.process_time() - start < 0.8
    assert sum(live.by_backend.values()) == there
