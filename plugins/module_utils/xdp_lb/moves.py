# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""From one ring to the next without moving a connection.

A slot that gets another backend remembers the one before it as its previous one. The data plane
sends a connection of such a slot there unless its flow table says that it was opened since. Three
kinds of pairs (backend, previous) follow:

- (b, 0): settled. Every flow of the slot is b's.
- (b, p): flows that no table knows are p's, new ones b's.
- (b, b): flows that no table knows are b's, but a table may know some of a third backend: the slot
  moved away and back, or its previous backend is gone. Not settled.
"""

from __future__ import annotations

import operator
import struct
from array import array
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from .layout import RING_SLOTS

_PAIRS_BYTES = 4 * RING_SLOTS  # struct slot: two u16
_MOVED = struct.Struct("=I")


@dataclass(frozen=True)
class Ring:
    """``struct ring``: ids of backends by slot; 0: none. ``moved``: when (``layout.coarse``)."""

    backends: array[int]
    previous: array[int]
    moved: int

    def pack(self) -> bytes:
        """The ring's bytes: the only value of its map."""
        pairs = array("H", bytes(_PAIRS_BYTES))
        pairs[0::2] = self.backends
        pairs[1::2] = self.previous
        return pairs.tobytes() + _MOVED.pack(self.moved)

    @classmethod
    def unpack(cls, raw: bytes) -> Ring:
        """The ring behind the bytes."""
        pairs = array("H", raw[:_PAIRS_BYTES])
        return cls(pairs[0::2], pairs[1::2], _MOVED.unpack_from(raw, _PAIRS_BYTES)[0])


def first(assignment: array[int], now: int) -> Ring:
    """A ring without a past: a new service's, or one whose flows are all in tables (nat)."""
    return Ring(assignment, array("H", bytes(2 * RING_SLOTS)), now)


def move(
    old: Ring,
    assignment: array[int],
    lingering: Collection[int],
    now: int,
    newest: bool = False,
) -> Ring:
    """The ring with this assignment in which no connection of a lingering backend moves.

    ``lingering`` are the ids of the service's backends whose connections are kept: those with a
    record that are not disabled; no other id is left as a previous one. In a slot that is not
    settled the previous backend stays, since the flow table knows what was opened after it; but
    not with ``newest``: UDP after its grace, whose unknown flows are with the present backend.
    ``now`` is ``layout.coarse``; it becomes ``moved`` if any slot gets another backend.
    """
    size = 1 + max((*lingering, *set(old.backends), *set(old.previous)), default=0)
    kept = _table(size, lingering)
    oldest = _table(size, () if newest else lingering)
    spare = min(lingering, default=0)  # where no new connection can be made
    if any(old.previous):
        found = [
            (oldest[p] or kept[b] or n or spare) if p else (0 if b == n else kept[b])
            for b, p, n in zip(old.backends, old.previous, assignment)
        ]
    else:
        found = [0 if b == n else kept[b] for b, n in zip(old.backends, assignment)]
    return Ring(assignment, array("H", found), old.moved if old.backends == assignment else now)


def _table(size: int, ids: Iterable[int]) -> list[int]:
    """Each of the ids at its own index, 0 elsewhere."""
    table = [0] * size
    for each in ids:
        table[each] = each
    return table


def moved(old: array[int], new: array[int]) -> int:
    """How many slots get another backend."""
    return sum(map(operator.ne, old, new))


def unsettled(ring: Ring) -> array[int]:
    """The slots that have a previous backend, ascending."""
    return array("I", [slot for slot, previous in enumerate(ring.previous) if previous])


def settle(ring: Ring, slots: Iterable[int]) -> Ring:
    """The ring in which these slots have no previous backend any more."""
    previous = ring.previous[:]
    for slot in slots:
        previous[slot] = 0
    return replace(ring, previous=previous)


def without(ring: Ring, lingering: Collection[int]) -> Ring:
    """The ring with the same assignment whose previous backends are all lingering ones."""
    return move(ring, ring.backends, lingering, ring.moved)
