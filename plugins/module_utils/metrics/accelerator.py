# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics of the sockmap accelerators: ``struct counters`` of bpf/sockmap/sockmap.h."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ..bpf import percpu, pins
from . import planes
from .family import Family, counter

# Counters of bpf/sockmap/sockmap.h: why a socket never entered the map, and why a direction of one
# that did went to TCP.
LEFT = (
    "not_policy",
    "fast_open",
    "syn_cookie",
    "mptcp",
    "draining",
    "map_full",
    "not_inserted",
    "fionread",
)
FELL_BACK = ("no_peer", "peer_gone", "backlog", "one_way", "ktls", "closing", "drained")
_PLAIN = {
    "established": ("sockets_established", "Sockets seen reaching ESTABLISHED."),
    "admitted": ("sockets_admitted", "Sockets that entered the map."),
    "retired": ("sockets_retired", "Sockets that left the map alive, for plain TCP."),
    "paired": ("directions_paired", "Directions that are redirected past the stack."),
    "events_lost": ("events_lost", "Events for which the ring buffer had no room."),
}
_MARK = "redirected_bytes"  # another map of that name has no such counter


def families() -> list[Family]:
    """What every accelerator of this host has counted. Raises OSError."""
    plain = {
        name: counter(f"accelerator_{word}_total", text) for name, (word, text) in _PLAIN.items()
    }
    left = counter("accelerator_sockets_left_total", "Sockets that stayed on TCP, by reason.")
    fallbacks = counter(
        "accelerator_directions_fallback_total", "Directions that went to TCP, by reason."
    )
    messages = counter("accelerator_messages_total", "Messages of sockets in the map, by path.")
    sent = counter("accelerator_sent_bytes_total", "Bytes sent by sockets in the map, by path.")
    for name, base in planes.having(planes.ACCELERATOR):
        found = _totals(base)
        if _MARK not in found:
            continue
        for key, family in plain.items():
            family.add(found.get(key, 0), accelerator=name)
        for family, reasons in ((left, LEFT), (fallbacks, FELL_BACK)):
            # What a host runs may be older than this, and count less.
            for reason in (each for each in reasons if each in found):
                family.add(found[reason], accelerator=name, reason=reason)
        for path in ("redirected", "tcp"):
            messages.add(found.get(f"{path}_messages", 0), accelerator=name, path=path)
            sent.add(found.get(f"{path}_bytes", 0), accelerator=name, path=path)
    return [*plain.values(), left, fallbacks, messages, sent]


def _totals(base: str) -> Mapping[str, int]:
    """The counters, empty when they are gone or are something else."""
    try:
        with pins.get(os.path.join(base, "maps", planes.ACCELERATOR)) as fd:
            return percpu.totals(fd)
    except (FileNotFoundError, ValueError):
        return {}
