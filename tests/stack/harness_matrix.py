# SPDX-License-Identifier: GPL-3.0-or-later
"""Running many cases: which ones, on how many hosts at once, and what they came to."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TypeVar

from harness_cases import Bench, Verdict, scenarios
from harness_run import END, ERRNOS, KILL, Fault
from harness_stacks import Objects
from harness_steps import Step
from harness_world import World, entered

WORKERS = 2
Answer = TypeVar("Answer")
FULL = os.environ.get("STACK_FAULTS", "") == "all"  # make test-full


@dataclass(frozen=True)
class Report:
    """What came of a scenario's cases."""

    scenario: str
    changes: int
    reads: int
    verdicts: tuple[Verdict, ...]

    @property
    def problems(self) -> list[str]:
        return [
            f"{self.scenario}: {verdict.fault} ({verdict.step}): {verdict.problem}"
            for verdict in self.verdicts
            if verdict.problem
        ]

    @property
    def outcomes(self) -> Counter[str]:
        return Counter(verdict.outcome for verdict in self.verdicts)

    def __str__(self) -> str:
        outcomes = ", ".join(f"{number} {word}" for word, number in sorted(self.outcomes.items()))
        return (
            f"{self.scenario}: {self.changes} changing steps and {self.reads} reads enumerated, "
            f"{len(self.verdicts)} cases tried: {outcomes}"
        )


Chooser = Callable[[Sequence[Step]], list[Fault]]


def kills(most: int) -> Chooser:
    """SIGKILL at each change and after the last, or at so many of them, evenly spread."""

    def choose(steps: Sequence[Step]) -> list[Fault]:
        faults = [Fault(step.address, KILL) for step in steps if not step.read]
        return thinned([*faults, Fault(END, KILL)], most)

    return choose


def failures(most: int) -> Chooser:
    """Each errno at each change, and one of them at each read in turn.

    Or only so many: changes, evenly spread, and the first read of each kind. How many reads there
    are depends on what else is loaded on the machine; which cases are tried must not.
    """

    def choose(steps: Sequence[Step]) -> list[Fault]:
        reads = [step for step in steps if step.read]
        if not FULL:
            first: dict[str, Step] = {}
            for step in reads:
                first.setdefault(step.call, step)
            reads = list(first.values())
        asked = [
            Fault(step.address, ERRNOS[number % len(ERRNOS)]) for number, step in enumerate(reads)
        ]
        changed = []
        for step in steps:
            if not step.read:
                turn = step.number % len(ERRNOS)  # so that an even selection meets them all
                changed += [Fault(step.address, name) for name in ERRNOS[turn:] + ERRNOS[:turn]]
        return [*thinned(changed, most - len(asked)), *asked]

    return choose


def thinned(faults: list[Fault], most: int) -> list[Fault]:
    """At most so many, the first and the last among them, the same each time, evenly spread."""
    if FULL or len(faults) <= most:
        return faults
    stride = (len(faults) - 1) / (most - 1)
    return [faults[round(number * stride)] for number in range(most)]


def tried(scenario: str, kind: str, choose: Chooser, objects: Objects) -> Report:
    """Try the chosen faults of a scenario, on WORKERS hosts of this machine at once."""

    def attempts(world: World, number: int) -> tuple[int, int, list[Verdict]]:
        bench = Bench(world, objects, scenarios(objects, world)[scenario])
        faults = choose(bench.steps)[number::WORKERS]
        attempt = bench.kill if kind == "kill" else bench.fail
        verdicts = [attempt(fault) for fault in faults]
        reads = sum(1 for step in bench.steps if step.read)
        return len(bench.steps) - reads, reads, verdicts

    found = on_hosts(attempts)
    verdicts = [verdict for _changes, _reads, made in found for verdict in made]
    verdicts.sort(key=lambda verdict: (verdict.fault.address, verdict.fault.what))
    changes, reads, _verdicts = max(found, key=lambda each: each[0])
    return Report(scenario, changes, reads, tuple(verdicts))


def on_hosts(work: Callable[[World, int], Answer], count: int = WORKERS) -> list[Answer]:
    """What the function answers on each of so many hosts at once, each a process that ends with it."""

    def enter(number: int) -> Answer:
        with entered(f"stack{number}") as world:
            return work(world, number)

    return in_processes(enter, count)


def in_processes(work: Callable[[int], Answer], count: int = 1) -> list[Answer]:
    """What the function answers in each of so many processes at once."""
    context = multiprocessing.get_context("fork")
    workers = []
    for number in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(work, number, theirs))
        process.start()
        theirs.close()
        workers.append((process, ours))
    answers: list[Answer] = []
    for process, ours in workers:
        answer, complaint = ours.recv()
        process.join()
        assert not complaint, complaint
        answers.append(answer)
    return answers


def _work(work: Callable[[int], object], number: int, told: Connection) -> None:
    answer = None
    try:
        answer = work(number)
    finally:
        complaint = traceback.format_exc() if sys.exc_info()[0] else ""
        told.send((answer, complaint))
