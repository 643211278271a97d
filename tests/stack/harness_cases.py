# SPDX-License-Identifier: GPL-3.0-or-later
"""What is changed into what, and what has to be so after a fault: the cases of the kill and the fail matrix."""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import harness_stacks as stacks
import harness_world as worlds
from harness_run import END, Fault, Program, Run, run, together
from harness_stacks import Document, Objects
from harness_state import State, take
from harness_steps import Step
from harness_world import BPFFS, STORE, World

from ansible_collections.ebpf.fleet.plugins import module_utils
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import main as engine

KINDS = ("install", "upgrade", "prune", "rollback")
SCENARIOS = tuple(f"{family} {kind}" for family in ("edge", "accelerator") for kind in KINDS)
# All of the engine, so that the forks find it imported.
for _found in pkgutil.walk_packages(module_utils.__path__, f"{module_utils.__name__}."):
    importlib.import_module(_found.name)

SETLINK = "message 19"  # RTM_SETLINK, linux/rtnetlink.h
REFUSED = 1  # the status of a run that ended with a Failure
SETTLE = 10.0  # seconds that the kernel may take to free what a killed process held
# The versions that may be at work after a kill, by scenario; 0 is none.
ALLOWED = {"install": {0, 1}, "upgrade": {1, 2}, "prune": {0, 2}, "rollback": {1, 2}}

# What libbpf tries, and does without when the kernel refuses: its features one by one, and binding its own constants;
# it loads a program again, with a log, and makes a map again, without its types, before it gives up. Its errors are then not the kernel's.
LIBBPF_TRIES = ("bpf PROG_LOAD", "bpf BTF_LOAD", "bpf MAP_CREATE", "bpf PROG_BIND_MAP")


@dataclass(frozen=True)
class Scenario:
    """`base` leads to the old state, `request` from there to the new one."""

    name: str
    stack: str
    base: tuple[Document, ...]
    request: Document

    @property
    def kind(self) -> str:
        return self.name.split()[1]


@dataclass(frozen=True)
class Verdict:
    """What came of one case. `problem` is empty when all was as it has to be."""

    fault: Fault
    step: str
    outcome: str
    problem: str
    seconds: float


def scenarios(objects: Objects, world: World) -> dict[str, Scenario]:
    """All of them, for the stacks of this process."""
    # Programs are the machine's: the stacks of another worker have other names.
    edge, accelerator = (f"{family}-{os.getpid()}" for family in ("edge", "accelerator"))
    group = world.groups[0]
    versions = {
        edge: [
            stacks.edge(objects, edge, group, 1),
            stacks.edge(objects, edge, group, 2),
            stacks.edge(objects, edge, group, 2, pruned=True),
        ],
        accelerator: [
            stacks.accelerator(objects, accelerator, world.groups, 1),
            stacks.accelerator(objects, accelerator, world.groups, 2),
            stacks.accelerator(objects, accelerator, world.groups, 2, pruned=True),
        ],
    }
    made = {}
    for name, (first, second, pruned) in versions.items():
        withdraw = {"do": "withdraw", "name": name, "release": "v2", "lock_timeout": 30, "keep": 5}
        for kind, base, request in (
            ("install", (), first),
            ("upgrade", (first,), second),
            ("prune", (second,), pruned),
            ("rollback", (first, second), withdraw),
        ):
            label = f"{name.partition('-')[0]} {kind}"
            made[label] = Scenario(label, name, base, request)
    return made


def asking(request: Document, objects: Objects) -> Program:
    """The engine, asked by the controller."""

    def ask() -> int:
        try:
            result = engine.handle({**request, "blobs": str(objects.directory)}, False)
        except Failure as failure:
            print(json.dumps({"failed": str(failure), **failure.details}, default=str))
            return REFUSED
        print(json.dumps(result, default=str))
        return 0

    return ask


class Bench:
    """One scenario on one host: the states before and after, and the steps from one to the other."""

    def __init__(self, world: World, objects: Objects, scenario: Scenario) -> None:
        self.world, self.objects, self.scenario = world, objects, scenario
        self.prepare()
        made = run(asking(scenario.request, objects))
        assert made.status == 0, f"{scenario.name}: {made.output}{made.errors}"
        self.new = take(world)
        self.steps = made.steps
        self.is_prepared = False

    def ask(self, request: Document, fault: Fault | None = None) -> Run:
        """The engine's answer; only a run with a fault is held at its steps."""
        program = asking(request, self.objects)
        if fault is None:
            return together(program)[0]
        return run(program, fault, reads=fault.address[1] > 0)

    def prepare(self) -> None:
        """The old state, made anew."""
        worlds.wipe()
        for request in self.scenario.base:
            made = self.ask(request)
            assert made.status == 0, f"{self.scenario.name}: {made.output}{made.errors}"
        self.old = take(self.world)
        self.is_prepared = True

    def fail(self, fault: Fault) -> Verdict:
        """The run with one failing step leaves the old state, bit for bit, or the new one whole."""
        start = time.monotonic()
        if not self.is_prepared:
            self.prepare()
        made = self.ask(self.scenario.request, fault)
        outcome, problem = self._judge_failure(made, fault)
        self.is_prepared = outcome == "undone" and not problem
        problem = problem or self._traffic()
        step = str(made.hit or "(not reached)")
        return Verdict(fault, step, outcome, problem, time.monotonic() - start)

    def _judge_failure(self, made: Run, fault: Fault) -> tuple[str, str]:
        if made.hangs or made.status not in (0, REFUSED):
            return "crashed", f"status {made.status}: {made.output}{made.errors[-2000:]}"
        if made.status == 0:
            problem = _listed("not the new state", self._unlike(self.new))
            if made.hit is None:
                return "not reached", problem
            reason = _why_tolerated(made, made.hit, fault)
            return f"tolerated ({reason})", problem or ("" if reason else "it should have failed")
        left = self._settled(lambda: self.old.differences(take(self.world)))
        if left:
            return "undone", f"{_listed('not the old state', left)}\n{made.output}"
        names = (fault.what, os.strerror(_number(fault.what)))
        tried = made.hit is not None and made.hit.call in LIBBPF_TRIES
        if not tried and not any(name in made.output for name in names):
            return "undone", f"the error does not say {fault.what}: {made.output}"
        return "undone", ""

    def _unlike(self, goal: State) -> list[str]:
        return self._settled(lambda: goal.normal.differences(take(self.world).normal))

    def _settled(self, differences: Callable[[], list[str]]) -> list[str]:
        """The differences that stay once the kernel had time to free what nobody has any more."""
        deadline = time.monotonic() + SETTLE
        while (found := differences()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def kill(self, fault: Fault) -> Verdict:
        """After the kill traffic flows and the store can be read, and the next run completes it."""
        start = time.monotonic()
        self.prepare()
        self.is_prepared = False
        with self.world.long_connection() if self.is_accelerator else nullcontext() as connection:
            made = self.ask(self.scenario.request, fault)
            outcome = "killed" if made.status == -9 else f"ended with {made.status}"
            problem = self._traffic() or self._store()
            if connection is not None:
                worlds.exchange(connection)
            problem = problem or self._completes()
            problem = problem or self._traffic()
        step = str(made.hit or "(the end)")
        return Verdict(fault, step, outcome, problem, time.monotonic() - start)

    def _traffic(self) -> str:
        """What is wrong with the traffic now: packets of the edge, connections of the accelerator."""
        try:
            self.world.packet()
            self.world.short_connection(1)
            problem = self._accelerated() if self.is_accelerator else self._versions()
        except (OSError, AssertionError) as error:
            return f"no traffic: {error!r}"
        return problem

    @property
    def is_accelerator(self) -> bool:
        return self.scenario.name.startswith("accelerator")

    def _versions(self) -> str:
        """What is wrong with the versions that count packets at the hooks of the edge."""
        counters = BPFFS / "ebpf_fleet" / self.scenario.stack / "maps/seen"
        if not counters.exists():
            return "" if 0 in ALLOWED[self.scenario.kind] else "the counters are gone"
        before = worlds.seen(counters)
        self.world.packet()
        working = worlds.versions_at_work(before, worlds.seen(counters))
        return _wrong_versions(working, self.scenario.kind)

    def _accelerated(self) -> str:
        """What is wrong with a new connection of the first cgroup, which stays declared."""
        counters = BPFFS / "ebpf_fleet" / self.scenario.stack / "maps/counters"
        before = worlds.redirected(counters)
        self.world.short_connection(0)
        if self.scenario.kind != "install" and worlds.redirected(counters) == before:
            return "a new connection was not accelerated"
        return ""

    def _store(self) -> str:
        """What is wrong with the store: it has to be readable, `current` a release that is whole."""
        asked = self.ask({"do": "status", "name": self.scenario.stack, "lock_timeout": 30})
        if asked.status != 0:
            return f"no status: {asked.output}{asked.errors}"
        current = STORE / self.scenario.stack / "current"
        if current.is_symlink():
            json.loads((current / "manifest.json").read_text())
            json.loads((current / "record.json").read_text())
        elif self.scenario.base:
            return "no release is current"
        return ""

    def _completes(self) -> str:
        made = self.ask(self.scenario.request)
        if made.status != 0:
            return f"the next run fails: {made.output}{made.errors}"
        problem = _listed("the next run leaves", self._unlike(self.new))
        again = self.ask(self.scenario.request)
        if again.status != 0 or json.loads(again.output)["changed"]:
            return problem + f"\nthe run after that: {again.output}{again.errors}"
        return problem


def _why_tolerated(made: Run, step: Step, fault: Fault) -> str:
    """Why this fault may make no difference, "" when it may not."""
    if fault.what == "EINTR":
        return "tried again"
    if (step.call, fault.what) in (
        ("bpf PROG_QUERY", "ENOSPC"),
        ("bpf MAP_LOOKUP_BATCH", "ENOSPC"),
    ):
        return "asked again with more room"
    planning = next((each.address for each in made.steps if each.call == "unshare"), END)
    if step.address < planning:
        return "a first look, repeated by the plan"
    near = [each.about for each in made.changes if 0 <= step.number - each.number <= 2]
    if any(about.startswith("fleet_") for about in near):
        return "the gate asks in several ways"
    if (step.call, fault.what) == ("bpf PROG_QUERY", "EBUSY"):
        return "what a socket map answers that runs the other verdict"
    if (step.call, step.about, fault.what) == ("netlink sendto", SETLINK, "EBUSY"):
        return "what an interface answers whose program a link holds"
    if step.call in LIBBPF_TRIES:
        return "libbpf asks what the kernel can do"
    return ""


def _wrong_versions(working: dict[str, set[int]], kind: str) -> str:
    """Each hook runs one version, or, where the scenario installs or prunes, possibly none."""
    allowed = ALLOWED[kind]
    wrong = {
        hook: versions
        for hook, versions in working.items()
        if len(versions) > 1 or not (versions or {0}) <= allowed
    }
    return f"these versions are at work: {wrong}" if wrong else ""


def _listed(title: str, differences: Sequence[str]) -> str:
    return "\n  ".join([f"{title}:", *(text[:700] for text in differences)]) if differences else ""


def _number(name: str) -> int:
    return int(getattr(errno, name))
