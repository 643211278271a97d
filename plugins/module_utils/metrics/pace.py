# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How often each part of the metrics is collected: never so often that it costs a host anything.

A collector rests ``rest`` times as long as it has worked, by the processor's time; until then what
it found last is told again. So a host with ten thousand maps, or with millions of entries in one,
has older numbers and not a busier processor. All collectors together stay below the sum of their
``1 / rest`` of one core, however often and by however many they are asked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ..resource.errors import Failure
from .family import Family, gauge

REST = 1000

Collect = Callable[[], list[Family]]


@dataclass(frozen=True)
class Collector:
    """A part of the metrics. ``stamp`` gives what has to change for it to be collected at once.

    A stamp rests, too, as many times as long as it took.
    """

    name: str
    collect: Collect
    stamp: Callable[[], object] = lambda: None
    at_least: float = 0.0  # seconds that it rests in any case
    rest: float = REST
    slow: bool = False  # it runs another process, which a scrape need not wait for


@dataclass
class _Last:
    """What a collector found, in seconds of CLOCK_MONOTONIC, of the wall clock, and of the CPU."""

    families: list[Family] = field(default_factory=list)
    stamp: object = None
    stamp_due: float = 0.0
    due: float = 0.0
    at: float = 0.0
    cost: float = 0.0
    problem: str = "not collected yet"


class Pace:
    """The collectors, with what each has found last.

    Slow ones may be renewed by another thread than the others, each kind by one at a time.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._collectors = collectors
        self._last = {each.name: _Last() for each in collectors}

    def renew(self, slow: bool) -> None:
        """Collect anew what is due, of the slow ones or of the others."""
        for each in self._collectors:
            if each.slow != slow:
                continue
            last = self._last[each.name]
            now, stamp = time.monotonic(), last.stamp
            if now >= min(last.due, last.stamp_due):
                stamp = _stamped(each, last)
            if now >= last.due or stamp != last.stamp:
                self._last[each.name] = _collected(each, stamp, last)

    def told(self) -> list[Family]:
        """Everything as it was found last."""
        found = [family for last in self._last.values() for family in last.families]
        return [*found, *self._about()]

    def problems(self) -> Iterable[str]:
        """What could not be collected, and why."""
        return [f"{name}: {last.problem}" for name, last in self._last.items() if last.problem]

    def _about(self) -> list[Family]:
        success = gauge("collector_success", "Whether the collector's last attempt was successful.")
        cost = gauge(
            "collector_cpu_seconds", "Processor time that the collector's last attempt took."
        )
        at = gauge(
            "collector_timestamp_seconds",
            "When the collector's numbers are of; it rests the longer, the more it costs.",
        )
        for name, last in self._last.items():
            success.add(not last.problem, collector=name)
            cost.add(last.cost, collector=name)
            at.add(last.at, collector=name)
        return [success, cost, at]


def _stamped(collector: Collector, last: _Last) -> object:
    """The collector's stamp as it is now."""
    before = time.thread_time()
    stamp = collector.stamp()
    last.stamp_due = time.monotonic() + (time.thread_time() - before) * collector.rest
    return stamp


def _collected(collector: Collector, stamp: object, last: _Last) -> _Last:
    """A new attempt; one that fails keeps the numbers of the one before, and their time."""
    before = _cpu_seconds(collector.slow)
    problem = ""
    families, at = last.families, last.at
    try:
        families, at = collector.collect(), time.time()
    except (Failure, OSError, ValueError) as error:
        problem = str(error)
    cost = _cpu_seconds(collector.slow) - before
    due = time.monotonic() + max(cost * collector.rest, collector.at_least)
    return _Last(families, stamp, last.stamp_due, due, at, cost, problem)


def _cpu_seconds(children: bool) -> float:
    """The processor time of this thread, and of the ``children`` that it has waited for."""
    spent = os.times()
    return time.thread_time() + (spent.children_user + spent.children_system if children else 0.0)
