# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Changes to the maps, in an order in which no packet meets something half done.

What is named is there before what names it, and goes after it. A run that is killed in between
leaves names behind (they come first and go last), by which the next run finds what there is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..bpf import journal
from . import connections, tables
from .layout import Backend, Settings
from .members import DISABLED
from .moves import Ring
from .tables import Map, Tables


@dataclass(frozen=True)
class Writes:
    """What a change writes. None, or the empty name, takes away."""

    names: Mapping[int, str] = field(default_factory=dict)
    backends: Mapping[int, Backend | None] = field(default_factory=dict)
    rings: Mapping[int, Ring | None] = field(default_factory=dict)
    entries: Mapping[bytes, bytes | None] = field(default_factory=dict)
    new_services: tuple[int, ...] = ()  # ids whose counters begin anew
    new_backends: tuple[int, ...] = ()
    settings: Settings | None = None

    def __bool__(self) -> bool:
        return bool(self.names or self.backends or self.rings or self.entries or self.settings)


def merge(parts: Iterable[Writes]) -> Writes:
    """All writes as one. No two write the same thing."""
    names: dict[int, str] = {}
    backends: dict[int, Backend | None] = {}
    rings: dict[int, Ring | None] = {}
    entries: dict[bytes, bytes | None] = {}
    services: list[int] = []
    servers: list[int] = []
    settings = None
    for part in parts:
        names.update(part.names)
        backends.update(part.backends)
        rings.update(part.rings)
        entries.update(part.entries)
        services += part.new_services
        servers += part.new_backends
        settings = part.settings or settings
    return Writes(names, backends, rings, entries, tuple(services), tuple(servers), settings)


def write(found: Mapping[str, Map], writes: Writes, now: Tables) -> None:
    """Carry the writes out; ``now`` are the tables before, which may leave the rings out.

    The filter of services follows from their keys, so that it is never said what it is to be.
    """
    settled = writes.settings or now.settings
    wide = _transition(now.settings, settled)
    then = {**now.services, **writes.entries}
    tables.put_filter(found, then)
    if wide != now.settings:
        tables.put_settings(found, wide)
    _bring(found, writes)
    _take(found, writes)
    tables.put_filter(found, [key for key, value in then.items() if value is not None])
    if settled != wide:
        tables.put_settings(found, settled)


def _transition(now: Settings, settled: Settings) -> Settings:
    """What holds while the rest is written: all that is needed before or after."""
    if not settled.layout:
        return now
    return dataclasses.replace(settled, flags=now.flags | settled.flags)


def _bring(found: Mapping[str, Map], writes: Writes) -> None:
    for number, name in writes.names.items():
        if name:
            tables.put_name(found, number, name)
    tables.clear_counters(found, "service_counters", writes.new_services)
    tables.clear_counters(found, "backend_counters", writes.new_backends)
    backends = writes.backends.items()
    tables.put_backends(found, {key: each for key, each in backends if not _is_last(each)})
    rings = writes.rings.items()
    tables.put_rings(found, {number: ring.pack() for number, ring in rings if ring})
    for key, value in writes.entries.items():
        if value is not None:
            tables.put_service(found, key, value)


def _take(found: Mapping[str, Map], writes: Writes) -> None:
    for key, value in writes.entries.items():
        if value is None:
            tables.remove_service(found, key)
    for number, ring in writes.rings.items():
        if ring is None:
            tables.remove_ring(found, number)
    backends = writes.backends.items()
    tables.put_backends(found, {key: each for key, each in backends if _is_last(each)})
    freed = [key for key, each in backends if each is None]
    if freed:
        flows = {name: journal.hold(found[name].fd) for name in connections.TABLES}
        journal.at_commit(
            "forget the connections of backends that are gone",
            lambda: connections.forget(flows, backends=freed),
        )
    for number, name in writes.names.items():
        if not name:
            tables.put_name(found, number, name)


def _is_last(backend: Backend | None) -> bool:
    """Whether a record takes packets away from a backend: rings must not name it by then."""
    return backend is None or backend.state == DISABLED
