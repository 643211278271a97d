# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From ring to ring: no connection changes its backend, whatever the sequence of changes."""

from __future__ import annotations

import random
import time
from array import array
from dataclasses import dataclass, field

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import moves
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.layout import RING_SLOTS

THEN, NOW = 100, 200


def everywhere(backend: int) -> array[int]:
    return array("H", [backend]) * RING_SLOTS


def pair(ring: moves.Ring, slot: int = 0) -> tuple[int, int]:
    return ring.backends[slot], ring.previous[slot]


@pytest.mark.parametrize(
    ("before", "assigned", "lingering", "after"),
    [
        ((1, 0), 1, {1, 2}, (1, 0)),  # nothing happened
        ((1, 0), 2, {1, 2}, (2, 1)),  # its connections stay at 1
        ((1, 0), 2, {2}, (2, 0)),  # 1 is disabled or gone, and so are they
        ((0, 0), 2, {2}, (2, 0)),  # there were none
        ((1, 0), 0, {1}, (0, 1)),  # the last one drains
        ((2, 1), 3, {1, 2, 3}, (3, 1)),  # the table knows what was opened at 2
        ((2, 1), 2, {1, 2}, (2, 1)),  # still under way
        ((2, 1), 1, {1, 2}, (1, 1)),  # back again: the table knows those at 2
        ((1, 1), 1, {1, 2}, (1, 1)),
        ((1, 1), 3, {1, 2, 3}, (3, 1)),
        ((2, 1), 2, {2, 3}, (2, 2)),  # 1 is gone; the table may know some at 3
        ((2, 1), 3, {2, 3}, (3, 2)),
        ((2, 1), 3, {3}, (3, 3)),
        ((2, 1), 0, {3}, (0, 3)),  # nobody is new, 3 may have some that the table knows
        ((2, 1), 0, set(), (0, 0)),
    ],
)
def test_pairs(
    before: tuple[int, int], assigned: int, lingering: set[int], after: tuple[int, int]
) -> None:
    old = moves.Ring(everywhere(before[0]), everywhere(before[1]), THEN)
    new = moves.move(old, everywhere(assigned), lingering, NOW)
    assert pair(new) == pair(new, RING_SLOTS - 1) == after
    assert new.moved == (THEN if assigned == before[0] else NOW)


@pytest.mark.parametrize(
    ("before", "assigned", "lingering", "after"),
    [
        ((1, 0), 1, {1, 2}, (1, 0)),
        ((1, 0), 2, {1, 2}, (2, 1)),
        ((2, 1), 3, {1, 2, 3}, (3, 2)),  # those at 1 are in the table, those at 2 are not
        ((2, 1), 1, {1, 2}, (1, 2)),
        ((2, 1), 2, {1, 2}, (2, 2)),
        ((2, 1), 3, {1, 3}, (3, 3)),
    ],
)
def test_pairs_of_datagrams_after_their_grace(
    before: tuple[int, int], assigned: int, lingering: set[int], after: tuple[int, int]
) -> None:
    old = moves.Ring(everywhere(before[0]), everywhere(before[1]), THEN)
    assert pair(moves.move(old, everywhere(assigned), lingering, NOW, newest=True)) == after


def test_the_first_ring_is_settled() -> None:
    ring = moves.first(everywhere(7), NOW)
    assert (pair(ring), ring.moved, len(moves.unsettled(ring))) == ((7, 0), NOW, 0)


def test_slots_are_settled_one_by_one() -> None:
    moving = moves.move(moves.first(everywhere(1), THEN), everywhere(2), {1, 2}, NOW)
    ring = moves.settle(moving, [0, 65536])
    assert list(moves.unsettled(ring)) == list(range(1, 65536))
    assert (pair(ring), pair(ring, 1), pair(ring, 65536)) == ((2, 0), (2, 1), (2, 0))
    assert pair(moving) == (2, 1)
    assert ring.moved == NOW


def test_an_id_is_out_of_the_ring_before_it_is_free() -> None:
    moving = moves.move(moves.first(everywhere(1), THEN), everywhere(2), {1, 2}, NOW)
    ring = moves.without(moving, {2})
    assert (pair(ring), ring.moved) == ((2, 2), NOW)


def test_the_number_of_moved_slots() -> None:
    half = everywhere(1)[: RING_SLOTS // 2] + everywhere(2)[RING_SLOTS // 2 :]
    assert moves.moved(everywhere(1), half) == 32769
    assert moves.moved(half, half) == 0


def test_a_move_takes_less_than_thirty_milliseconds() -> None:
    chance = random.Random(1)
    shuffled = [array("H", chance.choices(range(1, 101), k=RING_SLOTS)) for _each in range(3)]
    ring = moves.first(shuffled[0], THEN)
    for assignment in shuffled[1:]:
        start = time.process_time()
        ring = moves.move(ring, assignment, range(1, 101), NOW)
        moves.moved(ring.backends, assignment)
        moves.Ring.unpack(ring.pack())
        assert time.process_time() - start < 0.03


@dataclass
class Slot:
    """One slot as the data plane handles it: its pair, and what its tables know."""

    ring: moves.Ring
    table: dict[int, int] = field(default_factory=dict)

    def open(self, flow: int) -> int:
        """A SYN."""
        backend, previous = pair(self.ring)
        if previous and backend:
            self.table[flow] = backend
        return backend

    def follow(self, flow: int) -> int:
        """Any later packet."""
        backend, previous = pair(self.ring)
        return self.table.get(flow, previous) if previous else backend


def ring_of(backend: int, previous: int = 0) -> moves.Ring:
    return moves.Ring(array("H", [backend]), array("H", [previous]), THEN)


@pytest.mark.parametrize("seed", range(200))
def test_no_connection_moves_whatever_happens(seed: int) -> None:
    chance = random.Random(seed)
    slot = Slot(ring_of(1))
    present = {1, 2, 3, 4}
    open_flows: dict[int, int] = {}
    for step in range(300):
        action = chance.choice(("open", "open", "close", "move", "move", "settle", "remove", "add"))
        if action == "open":
            backend = slot.open(step)
            if backend:
                open_flows[step] = backend
        elif action == "close" and open_flows:
            closed = chance.choice(list(open_flows))
            del open_flows[closed]
            slot.table.pop(closed, None)
        elif action == "move":
            target = chance.choice([0, *present]) if present else 0
            slot.ring = moves.move(slot.ring, array("H", [target]), present, NOW)
        elif action == "settle" and set(open_flows.values()) <= {slot.ring.backends[0]}:
            slot.ring = moves.settle(slot.ring, [0])
            slot.table.clear()
        elif action == "remove" and present:
            gone = chance.choice(list(present))
            present.remove(gone)
            target = slot.ring.backends[0]
            if target == gone:
                target = min(present, default=0)
            slot.ring = moves.move(slot.ring, array("H", [target]), present, NOW)
            for flow in [flow for flow, backend in open_flows.items() if backend == gone]:
                del open_flows[flow]
                slot.table.pop(flow, None)
        elif action == "add":
            present |= {1, 2, 3, 4}
        assert set(pair(slot.ring)) <= present | {0}
        for flow, backend in open_flows.items():
            assert slot.follow(flow) == backend, (step, action, pair(slot.ring))
