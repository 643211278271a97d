# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The accelerator's events for a while.

Where the declaration has them switched off they are switched on meanwhile. A second process
switches them off again, also when this one is killed: it sees the pipe between them end.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..bpf import btf, btf_values, info, maps, percpu, pins
from ..bpf.records import Record
from ..bpf.syscall import Fd
from ..resource.errors import Failure, from_os_error
from . import accelerated, formats, ring

_POLL_MS = 100
_ZERO = bytes(4)  # the only key of settings


@dataclass(frozen=True)
class Request:
    """Which accelerator, and for how long: seconds, and a number of events."""

    maps: str  # the directory of its maps' pins
    duration: float
    max_events: int


@dataclass
class _Inbox:
    """Events since a moment of CLOCK_MONOTONIC; what is older was nobody's to read."""

    since: int
    most: int
    events: list[accelerated.Event] = field(default_factory=list)
    is_full: bool = False
    interrupted: bool = False

    def take(self, raw: bytes) -> None:
        event = accelerated.parse(raw)
        if event.nanoseconds < self.since or self.is_full:
            return
        self.is_full = len(self.events) >= self.most
        if not self.is_full:
            self.events.append(event)

    def interrupt(self, *_signal: object) -> None:
        self.interrupted = True


def watch(request: Request) -> dict[str, Any]:
    """What happened to each connection of the accelerator meanwhile. Raises Failure, OSError."""
    with ExitStack() as stack:
        events, settings, counters = (
            stack.enter_context(_open(request, name)) for name in ("events", "settings", "counters")
        )
        stack.enter_context(_alone(request))
        return _watched(request, events, settings, counters)


def _watched(request: Request, events: Fd, settings: Fd, counters: Fd) -> dict[str, Any]:
    inbox = _Inbox(time.monotonic_ns(), request.max_events)
    offset = time.time_ns() - time.monotonic_ns()
    before_signal = signal.signal(signal.SIGINT, inbox.interrupt)
    try:
        with ring.opened(events, inbox.take) as opened:
            opened.consume()
            lost = percpu.totals(counters)["events_lost"]
            with _switched_on(settings):
                ended_by = _received(request, opened, inbox)
            opened.consume()
        lost = percpu.totals(counters)["events_lost"] - lost
    finally:
        signal.signal(signal.SIGINT, before_signal)
    return {
        "started": formats.utc(inbox.since + offset),
        "seconds": round((time.monotonic_ns() - inbox.since) / 1e9, 3),
        "ended_by": "max_events" if inbox.is_full else ended_by,
        "lost": lost,
        "connections": [found.report(offset) for found in accelerated.connections(inbox.events)],
    }


def _received(request: Request, opened: ring.Ring, inbox: _Inbox) -> str:
    end = time.monotonic() + request.duration
    while not inbox.is_full and not inbox.interrupted:
        rest = end - time.monotonic()
        if rest <= 0:
            return "duration"
        opened.poll(min(_POLL_MS, max(1, int(rest * 1000))))
    return "interrupt" if inbox.interrupted else "max_events"


def _open(request: Request, name: str) -> Fd:
    path = os.path.join(request.maps, name)
    try:
        return pins.get(path)
    except OSError as error:
        advice = "there is no accelerator of this name here; pin_dir names its pins"
        raise from_os_error(error, f"open {path}", advice) from error


@contextmanager
def _alone(request: Request) -> Iterator[None]:
    """Readers of one ring buffer take records away from each other."""
    fd = os.open(request.maps, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Failure(
            f"somebody else reads the events below {request.maps}; wait until they have done"
        ) from error
    finally:
        os.close(fd)


@contextmanager
def _switched_on(settings: Fd) -> Iterator[None]:
    """Events, switched on unless they are, and switched off afterwards by a process of its own."""
    if _events_are_on(settings):
        yield
        return
    reader, writer = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(writer)
        _guard(reader, settings)
    os.close(reader)
    try:
        _switch(settings, 1)
        yield
    finally:
        os.close(writer)
        os.waitpid(guard, 0)


def _guard(reader: int, settings: Fd) -> None:
    """Wait for the other process's end, whatever it is, and switch events off."""
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    for output in (1, 2):  # whoever started the other one waits for these to be closed
        os.dup2(reader, output)
    os.read(reader, 1)
    try:
        _switch(settings, 0)
    finally:
        os._exit(0)


def _shape(settings: Fd) -> tuple[Record, bytes]:
    about = info.map_(settings)
    shape = btf_values.shape_of(btf.load(about.btf_id), about.btf_value_type_id)
    if not isinstance(shape, Record):
        raise Failure("the settings of the accelerator are no struct; is it one?")
    return shape, maps.lookup(settings, _ZERO, about.value_size) or bytes(about.value_size)


def _events_are_on(settings: Fd) -> bool:
    shape, content = _shape(settings)
    return bool(shape.decode(content)["events"])


def _switch(settings: Fd, events: int) -> None:
    shape, content = _shape(settings)
    value = {**shape.decode(content), "events": events}
    maps.update(settings, _ZERO, shape.encode(value, "settings"))
