# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a running program delivers, within the bounds, and its tables afterwards."""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass, field
from typing import Any

from ..resource.errors import Failure
from . import formats
from .program import Program, said
from .records import Readers, is_zero, plain, total
from .request import Request

_POLL_MS = 50
_LOST = "_lost"  # a table of that name counts what did not fit into an output
_ROWS = ("HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LRU_PERCPU_HASH", "LPM_TRIE")


@dataclass
class _Inbox:
    """Events as they came, and what they weigh. ``ended_by`` is the bound that they reached."""

    request: Request
    received: list[tuple[str, bytes]] = field(default_factory=list)
    size: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    ended_by: str = ""

    def put(self, output: str, data: Any, size: int) -> None:
        """Take an event, unless a bound has been reached."""
        if len(self.received) >= self.request.max_events:
            self.ended_by = self.ended_by or "max_events"
        elif self.size + size > self.request.max_bytes:
            self.ended_by = self.ended_by or "max_bytes"
        if not self.ended_by:
            self.received.append((output, ctypes.string_at(data, size)))
            self.size += size


class Collector:
    """Events from all outputs of a program. Open it before the program is attached."""

    def __init__(self, program: Program, request: Request) -> None:
        self.program = program
        self.request = request
        self.inbox = _Inbox(request)
        self.interrupted = False
        tables = program.tables()
        kinds = program.bcc.table
        self.perf = {n: t for n, t in tables.items() if isinstance(t, kinds.PerfEventArray)}
        self.rings = {n: t for n, t in tables.items() if isinstance(t, kinds.RingBuf)}
        self.counted = {n: t for n, t in tables.items() if self._is_counter(n, tables)}
        self.rows = {
            name: table
            for name, table in tables.items()
            if kinds.map_type_name.get(getattr(table, "ttype", None)) in _ROWS
            and name not in self.counted
        }
        unknown = sorted(set(request.tables or ()) - set(self.rows))
        if unknown:
            raise Failure(
                f"tables: the source has no table {', '.join(unknown)} that holds entries"
            )
        self.readers: Readers = {
            name: formats.reader(said, program) for name, said in (request.decode or {}).items()
        }

    def _is_counter(self, name: str, tables: dict[str, Any]) -> bool:
        output = name[: -len(_LOST)] if name.endswith(_LOST) else ""
        return output in {**self.perf, **self.rings} and output in tables

    def open(self) -> None:
        """Make room for what the program will send. Raises Failure."""
        with said("cannot make room for events"):
            self._open()

    def _open(self) -> None:
        for name, table in self.perf.items():
            self.inbox.lost[name] = 0
            table.open_perf_buffer(
                lambda _cpu, data, size, name=name: self.inbox.put(name, data, size),
                page_cnt=self.request.perf_pages,
                lost_cb=lambda count, name=name: self._lose(name, count),
            )
        for name, table in self.rings.items():
            table.open_ring_buffer(
                lambda _context, data, size, name=name: self.inbox.put(name, data, size)
            )

    def _lose(self, name: str, count: int) -> None:
        self.inbox.lost[name] += count

    def run(self) -> str:
        """Receive until a bound is reached or somebody interrupts. Returns which."""
        end = time.monotonic() + self.request.duration
        while not self.inbox.ended_by:
            if self.interrupted:
                return "interrupt"
            rest = end - time.monotonic()
            if rest <= 0:
                return "duration"
            self._poll(min(_POLL_MS, max(1, int(rest * 1000))))
        return self.inbox.ended_by

    def _poll(self, milliseconds: int) -> None:
        if self.perf:
            self.program.module.perf_buffer_poll(milliseconds)
        if self.rings:
            self.program.module.ring_buffer_poll(1 if self.perf else milliseconds)
        if not self.perf and not self.rings:
            time.sleep(milliseconds / 1000)

    def interrupt(self, *_signal: object) -> None:
        """End it early, with all that is there."""
        self.interrupted = True

    def drain(self) -> None:
        """Receive what was on its way when the program was detached."""
        before = -1
        while before != len(self.inbox.received) and not self.inbox.ended_by:
            before = len(self.inbox.received)
            self._poll(1)

    def events(self) -> dict[str, list[Any]]:
        """The events of each output, in the order in which they came from their CPU or ring.

        An event may be shorter than its type: a program sends of an array what is used.
        """
        found: dict[str, list[Any]] = {name: [] for name in (*self.perf, *self.rings)}
        kinds: dict[str, Any] = {}
        with said("BCC does not know what an event is made of"):
            for name, table in {**self.perf, **self.rings}.items():
                nothing = ctypes.c_ulong()
                kinds[name] = type(table.event(ctypes.addressof(nothing)))
        for name, raw in self.inbox.received:
            size = max(len(raw), ctypes.sizeof(kinds[name]))
            event = kinds[name].from_buffer(ctypes.create_string_buffer(raw, size))
            found[name].append(plain(event, self.readers))
        return found

    def lost(self) -> dict[str, int | None]:
        """How many events of each output did not fit; None where nobody counts them."""
        found: dict[str, int | None] = {**dict.fromkeys(self.rings, None), **self.inbox.lost}
        for name, table in self.counted.items():
            found[name[: -len(_LOST)]] = sum(
                value if isinstance(value, int) else sum(value)
                for value in (_value_of(leaf, {}) for leaf in table.values())
            )
        return found

    def entries(self) -> tuple[dict[str, list[dict[str, Any]]], bool]:
        """The entries of each table, and whether all are there: max_bytes holds for them, too.

        Of arrays the elements that are not zero.
        """
        found: dict[str, list[dict[str, Any]]] = {}
        size = self.inbox.size
        for name, table in self.rows.items():
            if self.request.tables is not None and name not in self.request.tables:
                continue
            found[name] = []
            is_array = "ARRAY" in self.program.bcc.table.map_type_name[table.ttype]
            for key, leaf in table.items():
                if is_array and is_zero(_memory(leaf)):
                    continue
                size += ctypes.sizeof(key) + ctypes.sizeof(_memory(leaf))
                if size > self.request.max_bytes:
                    return found, False
                value = _value_of(leaf, self.readers)
                found[name].append({"key": plain(key, self.readers), "value": value})
        return found, True


def _memory(leaf: Any) -> Any:
    """The value as ctypes has it; BCC gives those of one CPU each as a list of them."""
    if isinstance(leaf, list):
        return (type(leaf[0]) * len(leaf))(*leaf)
    return leaf


def _value_of(leaf: Any, readers: Readers) -> Any:
    if isinstance(leaf, list) or (
        isinstance(leaf, ctypes.Array) and leaf._type_ not in (ctypes.c_char, ctypes.c_ubyte)
    ):
        return total(leaf, readers)
    return plain(leaf, readers)
