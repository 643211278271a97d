# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the sockmap accelerator says of sockets, put together to connections.

The records are ``struct event`` of bpf/sockmap/sockmap.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace

from . import formats

RECORD = struct.Struct("=QQ16s16sHHBBH")
KINDS = ("", "admitted", "left_on_tcp", "paired", "to_tcp", "retired")
REASONS = (
    "",
    "not_policy",
    "fast_open",
    "syn_cookie",
    "mptcp",
    "draining",
    "map_full",
    "not_inserted",
    "no_peer",
    "peer_gone",
    "backlog",
    "one_way",
    "ktls",
    "closing",
    "fionread",
)


@dataclass(frozen=True)
class Event:
    """One record. ``nanoseconds`` are CLOCK_MONOTONIC; an endpoint is an address and a port."""

    nanoseconds: int
    cookie: int
    local: tuple[str, int]
    remote: tuple[str, int]
    kind: str
    reason: str


@dataclass(frozen=True)
class End:
    """One socket: what was said of it, in order."""

    events: tuple[Event, ...]

    @property
    def first(self) -> Event:
        return self.events[0]

    @property
    def left(self) -> str:
        """Why it never entered the map; empty: it did."""
        return next((event.reason for event in self.events if event.kind == "left_on_tcp"), "")

    @property
    def fell_back(self) -> str:
        """Why what it sends goes through TCP; empty: it does not."""
        return next((event.reason for event in self.events if event.kind == "to_tcp"), "")

    @property
    def is_redirecting(self) -> bool:
        """Whether what it sent has been redirected."""
        return any(event.kind == "paired" for event in self.events)


@dataclass(frozen=True)
class Connection:
    """One or both ends of a connection, the earlier seen first."""

    ends: tuple[End, ...]

    @property
    def reasons(self) -> list[str]:
        """Why it is not accelerated, or no longer, each reason once."""
        found = [reason for end in self.ends for reason in (end.left, end.fell_back) if reason]
        return list(dict.fromkeys(found))

    @property
    def state(self) -> str:
        """accelerated, fell_back (it was), tcp (it never was), undecided (nothing was sent)."""
        redirected = any(end.is_redirecting for end in self.ends)
        if self.reasons:
            return "fell_back" if redirected else "tcp"
        return "accelerated" if redirected else "undecided"

    def report(self, offset: int) -> dict[str, object]:
        """It as data; ``offset`` is the time since the epoch at CLOCK_MONOTONIC 0, in ns."""
        first = self.ends[0].first
        return {
            "at": formats.utc(first.nanoseconds + offset),
            "local_address": first.local[0],
            "local_port": first.local[1],
            "remote_address": first.remote[0],
            "remote_port": first.remote[1],
            "ends": len(self.ends),
            "state": self.state,
            "reasons": self.reasons,
        }


def parse(raw: bytes) -> Event:
    """A record. A kind or reason newer than this is its number."""
    nanoseconds, cookie, local, remote, local_port, remote_port, kind, reason, _unused = (
        RECORD.unpack_from(raw)
    )
    return Event(
        nanoseconds,
        cookie,
        (formats.address_text(local.hex()), formats.port_number(local_port)),
        (formats.address_text(remote.hex()), formats.port_number(remote_port)),
        KINDS[kind] if kind < len(KINDS) else str(kind),
        REASONS[reason] if reason < len(REASONS) else str(reason),
    )


def connections(events: Iterable[Event]) -> list[Connection]:
    """The connections in the order in which they were first seen.

    Two sockets are the ends of one when each has the other's addresses the other way round and no
    third was there before; behind NAT each end is one by itself.
    """
    sockets: dict[int, End] = {}
    for event in sorted(events, key=lambda event: event.nanoseconds):
        known = sockets.get(event.cookie, End(()))
        sockets[event.cookie] = replace(known, events=(*known.events, event))
    found: list[list[End]] = []
    waiting: dict[tuple[tuple[str, int], tuple[str, int]], list[list[End]]] = {}
    for end in sockets.values():
        others = waiting.get((end.first.remote, end.first.local))
        if others:
            others.pop(0).append(end)
            continue
        found.append([end])
        waiting.setdefault((end.first.local, end.first.remote), []).append(found[-1])
    return [Connection(tuple(ends)) for ends in found]
