# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""An undo log: what was done is taken back, exactly, when a later step fails.

Whatever changes something says right afterwards how that is undone, and hands to the log what
cannot be undone (a link that is detached never attaches again), to be done at the end. Objects
that lose their last name are held by descriptor meanwhile, so that the very same ones come back.
When nothing records, all of this is nothing: the irreversible happens at once.

The log is found through a context variable. As an argument it would run through every function of
every kind down to the single system call, for the sake of one caller.
"""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from .syscall import Fd

_DESCRIPTORS = 1 << 16  # one for each ring of a balancer, and some

Action = Callable[[], object]


class Stopped(Exception):
    """The run was told to stop, by a signal, and stops where everything done is on record."""


class Log:
    """What was done so far, and what waits for the end of it all."""

    def __init__(self, outer: Log | None = None) -> None:
        self._undos: list[tuple[str, Action]] = []
        self._waiting: list[tuple[str, Action, int]] = []
        self._held: list[Fd] = []
        self._maps: dict[int, Fd] = {}  # among them, by id
        self._staying: set[int] = set()
        self._made: set[int] = set() if outer is None else outer._made
        self._orders: list[str] = [] if outer is None else outer._orders
        self._outer = outer

    def stop(self, why: str) -> None:
        """Let the next step raise Stopped as soon as it is on record. For handlers of signals.

        A handler that raises by itself may do so between a system call and its record.
        """
        self._orders.append(why)

    def roll_back(self) -> list[str]:
        """Take everything back, last first; what could not be is returned, and stops nothing."""
        failures = []
        with paused():
            while self._undos:
                what, action = self._undos.pop()
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - the other steps have to be taken back
                    failures.append(f"{what}: {error}")
        self._waiting.clear()
        self._staying.clear()
        self._let_go()
        return failures

    def commit(self) -> list[str]:
        """Do what waited, in order. What fails is returned and harmless: what it was to end ends
        with its last descriptor, too."""
        failures = []
        self._undos.clear()
        with paused():
            for what, action, _link_id in self._waiting:
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - the others have to be done
                    failures.append(f"{what}: {error}")
        self._waiting.clear()
        self._staying.clear()
        self._let_go()
        return failures

    def _let_go(self) -> None:
        for fd in reversed(self._held):
            fd.close()
        self._held.clear()
        self._maps.clear()

    def _append(self, inner: Log) -> None:
        self._undos += inner._undos
        self._waiting += inner._waiting
        self._held += inner._held
        self._maps.update(inner._maps)
        for link_id in inner._staying:
            self._stay(link_id)

    def _stay(self, link_id: int) -> None:
        self._staying.add(link_id)
        self._waiting = [each for each in self._waiting if each[2] != link_id]

    def _lineage(self) -> Iterator[Log]:
        log: Log | None = self
        while log is not None:
            yield log
            log = log._outer


_LOG: ContextVar[Log | None] = ContextVar("ebpf_fleet_journal", default=None)


@contextlib.contextmanager
def recording() -> Iterator[Log]:
    """Record what is done inside. Who records ends it with ``roll_back`` or ``commit``.

    An end that was left out by an exception is a ``roll_back``, any other a ``commit``. Inside
    another recording it is a part of that, which can be rolled back by itself.
    """
    outer = _LOG.get()
    log = Log(outer)
    _lift_descriptors()
    token = _LOG.set(log)
    try:
        yield log
    except BaseException:
        _LOG.reset(token)
        log.roll_back()
        raise
    _LOG.reset(token)
    if outer is None:
        log.commit()
    else:
        outer._append(log)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Record nothing inside: of what is dropped again at once, such as a rehearsal."""
    token = _LOG.set(None)
    try:
        yield
    finally:
        _LOG.reset(token)


def records() -> bool:
    """Whether what is done now may have to be undone: then the old state has to be read first."""
    return _LOG.get() is not None


def undo(what: str, action: Action) -> None:
    """Say how to undo what was just done; ``what`` names that inverse, for people.

    Raises Stopped, with the step on record, when the run was told to stop.
    """
    log = _LOG.get()
    if log is not None:
        log._undos.append((what, action))
        check()


def check() -> None:
    """Raise Stopped when the run was told to stop. For what waits."""
    log = _LOG.get()
    if log is not None and log._orders:
        raise Stopped(log._orders[0])


def at_commit(what: str, action: Action, link_id: int = 0) -> None:
    """Do what cannot be undone: at once, or when all else that is recorded has succeeded.

    ``link_id`` is the link that this detaches.
    """
    log = _LOG.get()
    if log is None:
        action()
    elif not any(link_id in each._staying for each in log._lineage()):
        log._waiting.append((what, action, link_id))
        check()


def hold(fd: Fd, map_id: int = 0) -> Fd:
    """A descriptor of the same object that lasts as long as the record; without one, ``fd``.

    Of a map, which may be written ten thousand times, one is enough: ``map_id`` says which it is.
    """
    log = _LOG.get()
    if log is None:
        return fd
    if map_id in log._maps:
        return log._maps[map_id]
    held = Fd(os.dup(fd.number))
    log._held.append(held)
    if map_id:
        log._maps[map_id] = held
    return held


def leaving() -> frozenset[int]:
    """The ids of the links that are attached now and detached at commit: as good as gone."""
    log = _LOG.get()
    if log is None:
        return frozenset()
    waiting = (each for part in log._lineage() for each in part._waiting)
    return frozenset(link_id for _what, _action, link_id in waiting if link_id)


def stays(link_id: int) -> None:
    """The link got another name: it is not detached, whichever other name it loses or has lost."""
    log = _LOG.get()
    for part in log._lineage() if log is not None else ():
        part._stay(link_id)


def made(map_id: int) -> None:
    """The map was made just now: what is written into it goes with it."""
    log = _LOG.get()
    if log is not None:
        log._made.add(map_id)


def is_new(map_id: int) -> bool:
    """Whether the map was made under this record."""
    log = _LOG.get()
    return log is not None and map_id in log._made


def _lift_descriptors() -> None:
    """Let this process open as many files as the log of a large balancer may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
