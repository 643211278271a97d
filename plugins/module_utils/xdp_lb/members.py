# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Which backends of a service are in its ring, and whose connections stay when it changes.

What an operator said goes before what health checks found: a draining or disabled backend is not in
the ring, however healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import layout, moves
from .layout import Backend
from .moves import Ring
from .ring import Computer, Member

ACTIVE, DISABLED = layout.STATES.index("active"), layout.STATES.index("disabled")
DOWN = layout.HEALTH.index("down")
NAT = layout.FORWARDING.index("nat")

# When fewer of the active backends are healthy, checks are rather wrong than all of them down.
FLOOR_PERCENT = 50


def keeps_all(backends: Mapping[int, Backend]) -> bool:
    """Whether so many of a service's active backends are down that all stay in the ring."""
    active = [backend for backend in backends.values() if backend.state == ACTIVE]
    healthy = sum(backend.health != DOWN for backend in active)
    return 100 * healthy < FLOOR_PERCENT * len(active)


def members(backends: Mapping[int, Backend]) -> tuple[Member, ...]:
    """The ring's members among one service's backends, which are by id."""
    all_stay = keeps_all(backends)
    return tuple(
        Member(number, backend.address, backend.port, backend.weight)
        for number, backend in sorted(backends.items())
        if backend.address is not None
        and backend.state == ACTIVE
        and (all_stay or backend.health != DOWN)
    )


def lingering(backends: Mapping[int, Backend], forwarding: int) -> frozenset[int]:
    """Ids of one service's backends whose connections stay where they are when slots move.

    With nat the table of translations says it of every connection; its slots need not.
    """
    if forwarding == NAT:
        return frozenset()
    return frozenset(number for number, backend in backends.items() if backend.state != DISABLED)


@dataclass(frozen=True)
class Moment:
    """When a ring is made: ``now`` is ``layout.coarse``, ``udp_grace`` that of the settings."""

    now: int
    udp_grace: int


def next_ring(
    computer: Computer,
    backends: Mapping[int, Backend],
    forwarding: int,
    udp: bool,
    old: Ring | None,
    moment: Moment,
) -> Ring:
    """The ring that one service's backends (by id) are to have, equal to ``old`` if that is it.

    ``old`` is the ring that it has, None for a service that has none yet.
    """
    assignment = computer.assign(members(backends))
    if old is None:
        return moves.first(assignment, moment.now)
    stay = lingering(backends, forwarding)
    if old.backends == assignment and set(old.previous) <= {0, *stay}:
        return old
    # After the grace, UDP flows that no table knows are with the present backend.
    rested = (moment.now - old.moved) & 0xFFFFFFFF >= moment.udp_grace
    newest = udp and rested and old.backends != assignment
    return moves.move(old, assignment, stay, moment.now, newest)
