# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs to converge hosts: as stacks, as single tasks, and by shell scripts.

    converge.py [--rows SUBSTRING] [--pairs N] [--hosts N,N,...]

On hosts of a lab of its own, over ssh with pipelining, all on this machine. The stack, the single tasks and the script each
have a host of their own, and take turns. A task takes from when Ansible hands it to a worker until its result is there; a
script from the start of ssh to its end. Exits 1 when a target is missed, 2 when something needed is not there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["EBPF_FLEET_LAB"] = "bench"
sys.path.append(str(Path(__file__).resolve().parents[1] / "lab"))

import cgroups
import converge_runs as runs
import converge_states as states
import environment
import fabric
import layout
import plays
import table
from converge_runs import Played
from converge_states import State
from table import Row, Target

STACK, TASKS, SHELL = layout.HOSTS[:3]
PING = {"ansible.builtin.ping": {}}
# an unchanged host costs at most 1.5 times Ansible's own cost of an empty module
UNCHANGED = Target(1 / 1.5, "the empty module")
# a host's share of the time among 50 hosts is at most 1.25 times its share among 10
LINEAR = Target(1 / 1.25, "a host's share")


@contextmanager
def lab(count: int) -> Iterator[None]:
    """The first `count` hosts, and no trace of them afterwards."""
    layout.HOSTS = fabric.HOSTS = layout.HOSTS[:count]
    plays.link_collection()
    try:
        fabric.up()
        for host in layout.HOSTS:
            runs.prepare(host)
        yield
    finally:
        fabric.down()


def row(
    name: str, figures: dict[str, list[float]], target: Target | None, judged: str = "ours"
) -> Row:
    """Seconds, shown as milliseconds."""
    shown = {variant: [1000 * each for each in values] for variant, values in figures.items()}
    return Row(name, "ms", True, shown, {}, target, judged)


def tasks_plays(state: State, name: str, release: int, number: int) -> list[runs.Play]:
    named = [(f"{name} {number}", task) for task in state.tasks(release)]
    return [runs.play([TASKS], *named)]


def away(state: State) -> list[runs.Play]:
    """Both hosts as if nothing had been there."""
    return [
        runs.play([STACK], ("away", state.no_stack())),
        runs.play([TASKS], *(("away", task) for task in state.no_tasks())),
    ]


def alternately(number: int, *groups: list[runs.Play]) -> list[runs.Play]:
    """In turn the one first and the other."""
    ordered = groups if number % 2 == 0 else tuple(reversed(groups))
    return [each for group in ordered for each in group]


def unchanged(scratch: Path, state: State, pairs: int) -> Row:
    """Hosts that are as declared: an empty module, the stack, the single tasks."""
    made: list[runs.Play] = []
    for number in range(pairs):
        made += alternately(
            number,
            [runs.play([STACK], (f"empty {number}", PING))],
            [runs.play([STACK], (f"ours {number}", state.stack(0)))],
            tasks_plays(state, "tasks", 0, number),
        )
    # one of each before, which does not count: connections, and what Ansible has to find
    seen = runs.run(scratch, [runs.play([STACK, TASKS], ("first", PING)), *made])
    must_not_change(seen)
    figures = {name: seen.sums(name) for name in ("empty", "ours", "tasks")}
    return row(f"{state.name}, unchanged", figures, UNCHANGED)


def must_not_change(seen: Played) -> None:
    wrong = [
        f"{each.host}: {each.task}: {'; '.join(each.actions)}"
        for each in seen.timings
        if each.changed
    ]
    if wrong:
        raise runs.RunError("changed what was as declared:\n" + "\n".join(wrong))


def first(scratch: Path, state: State, files: dict[str, str], pairs: int) -> Row:
    """Hosts on which nothing was there before; engine and objects have to be sent, too."""
    scripts, seen = [], []
    for number in range(pairs):
        runs.script(SHELL, state, 0, files, "down")
        made = alternately(
            number,
            [runs.play([STACK], ("ours 0", state.stack(0)))],
            tasks_plays(state, "tasks", 0, 0),
        )
        connected = runs.play([STACK, TASKS], ("connected", PING))
        seen.append(runs.run(scratch, [*away(state), connected, *made]))
        scripts.append(runs.script(SHELL, state, 0, files, "up"))
    figures = {"shell": scripts, **{name: sums(seen, name) for name in ("ours", "tasks")}}
    return row(f"{state.name}, first time", figures, None)


def upgraded(scratch: Path, state: State, files: dict[str, str], pairs: int) -> Row:
    """From one release to the other: programs replaced, maps kept. Both are in the stack's store from the second time on."""
    scripts, seen = [], []
    for number in range(pairs):
        release = (number + 1) % 2
        made = alternately(
            number,
            [runs.play([STACK], ("ours 0", state.stack(release)))],
            tasks_plays(state, "tasks", release, 0),
        )
        seen.append(runs.run(scratch, [runs.play([STACK, TASKS], ("connected", PING)), *made]))
        scripts.append(runs.script(SHELL, state, release, files, "upgrade"))
    figures = {"shell": scripts, **{name: sums(seen, name) for name in ("ours", "tasks")}}
    return row(f"{state.name}, upgraded", figures, None)


def sums(seen: list[Played], name: str) -> list[float]:
    return [each for played in seen for each in played.sums(name)]


def traffic(scratch: Path, state: State) -> list[str]:
    """What goes over the wire, and how long the module runs on the host: one run of each."""
    lines = []
    for what, before, host, tasks in (
        ("empty", [], STACK, [PING]),
        ("first time", away(state), STACK, [state.stack(0)]),
        ("first time, tasks", [], TASKS, state.tasks(0)),
        ("unchanged", [], STACK, [state.stack(0)]),
        ("unchanged, tasks", [], TASKS, state.tasks(0)),
        ("upgraded", [], STACK, [state.stack(1)]),
        ("upgraded, tasks", [], TASKS, state.tasks(1)),
    ):
        connected = runs.play([host], ("connected", PING))
        runs.run(scratch, [*before, connected], timed=True)
        for each in {host, STACK, TASKS} if before else {host}:
            runs.in_python(each)
        empty = runs.received(host)
        named = [(what, task) for task in tasks]
        seen = runs.run(scratch, [runs.play([host], *named)], timed=True, verbose=True)
        given, took = runs.in_python(host)
        sent = runs.received(host) - empty
        lines.append(
            f"{state.name + ', ' + what:34}{seen.exchanges:4} exchanges,{sent / 1024:9.1f} KiB to the "
            f"host, {given / 1024:8.1f} KiB of them to Python, which ran {took:7.0f} ms"
        )
    return lines


def scaling(scratch: Path, state: State, counts: list[int], pairs: int) -> list[Row]:
    """Among more hosts at once, a host's share of the time from the first one's start to the last one's end."""
    groups = {count: layout.HOSTS[:count] for count in counts}
    made = [runs.play(layout.HOSTS, ("first", state.stack(0)))]
    installed = runs.run(scratch, made, forks=max(counts))
    took = elapsed(installed.of("first"))
    print(f"{state.name}, first time on {len(layout.HOSTS)} hosts: {took:.1f} s", flush=True)
    made = [runs.play(layout.HOSTS, ("connected", PING))]
    for number in range(pairs):
        for count in counts if number % 2 == 0 else reversed(counts):
            made.append(runs.play(groups[count], (f"empty {count} {number}", PING)))
            made.append(runs.play(groups[count], (f"ours {count} {number}", state.stack(0))))
    seen = runs.run(scratch, made, forks=max(counts))
    must_not_change(seen)
    rows = []
    for name, what in (("empty", "empty module"), ("ours", f"{state.name}, unchanged")):
        figures = {
            f"{count} hosts": [
                elapsed(seen.of(f"{name} {count} {number}")) / count for number in range(pairs)
            ]
            for count in counts
        }
        target = LINEAR if name == "ours" else None
        rows.append(row(f"{what}, share of 1 of", figures, target, f"{max(counts)} hosts"))
    return rows


def elapsed(timings: list[runs.Timing]) -> float:
    return max(each.ended for each in timings) - min(each.began for each in timings)


def report(made: Row, rows: list[Row]) -> None:
    rows.append(made)
    print("\n".join(table.lines(made)), flush=True)


def measure(scratch: Path, state: State, pairs: int, rows: list[Row]) -> None:
    """One state in all ways; it is gone from the hosts afterwards."""
    runs.run(scratch, [runs.play([STACK], ("ours", state.stack(0)))])
    files = runs.entries(STACK, state)
    report(first(scratch, state, files, max(2, pairs // 2)), rows)
    report(unchanged(scratch, state, pairs), rows)
    report(upgraded(scratch, state, files, max(2, pairs // 2)), rows)
    print("\n".join(traffic(scratch, state)), flush=True)
    runs.run(scratch, away(state))
    runs.script(SHELL, state, 0, files, "down")


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="", help="only sockmap, xdp_lb or scaling")
    parser.add_argument(
        "--pairs", type=int, default=10, help="runs of what is unchanged (default: 10)"
    )
    parser.add_argument("--hosts", default="10,25,50", help="how many at once (default: 10,25,50)")
    return parser.parse_args()


def main() -> int:
    """Make the hosts, measure, print, take them away."""
    options = arguments()
    counts = sorted(int(each) for each in options.hosts.split(","))
    began = time.monotonic()
    rows: list[Row] = []
    with environment.scratch() as scratch:
        known = {"sockmap": states.accelerator(scratch), "xdp_lb": states.balancer(scratch)}
        scales = options.rows in "scaling"
        with lab(max(counts) if scales else 3):
            load = os.getloadavg()[0]
            print(f"{time.monotonic() - began:.0f} s to make {len(layout.HOSTS)} hosts", flush=True)
            print(table.HEADER, flush=True)
            for name, state in known.items():
                if options.rows in name:
                    measure(scratch, state, options.pairs, rows)
            if scales:
                pairs = max(2, options.pairs // 2)
                for each in scaling(scratch, known["sockmap"], counts, pairs):
                    report(each, rows)
    ratio = statistics.median(os.getloadavg())
    print(
        f"{time.monotonic() - began:.0f} s; load {load:.1f} before, {ratio:.1f} at the end, which is"
    )
    print("mostly the benchmark's own: Ansible, sshd and the hosts share this machine's CPUs")
    table.keep(rows, "Runs of stacks against single tasks and shell scripts.")
    print(table.verdict(rows))
    return 0 if table.all_held(rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.CalledProcessError, cgroups.LabError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
