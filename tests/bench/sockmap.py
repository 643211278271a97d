# SPDX-License-Identifier: GPL-3.0-or-later
"""The sockmap accelerator against plain TCP: interleaved pairs, medians, targets.

    sockmap.py [--rows SUBSTRING] [--pairs N] [--counters] [--list]

Each pair runs the same work plain and accelerated, right after each other and in turn first; a
gain is how many times better than plain (shorter, or more a second). The seed is the published
design that redirects by 4-tuple, fast and wrong: the most that redirection gains on the machine.
Exits 1 when a target is missed, 2 when something needed is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import environment
import nginx
import table
from environment import Path3, Variant
from table import Row, Target

HERE = Path(__file__).resolve().parent
OBJECT = HERE.parents[1] / "roles/sockmap_accelerator/files/sockmap.bpf.o"
NOT_SLOWER = Target(0.97, "not slower")
# p50 at most 0.62 of plain TCP
PINGPONG = Target(1 / 0.62, "p50")
LOOPBACK = Target(1.5, "requests/s")
NETNS = Target(1.8, "requests/s")
ONE_CPU = ("--client-cpu", "0", "--server-cpu", "0")
TWO_CPUS = ("--client-cpu", "0", "--server-cpu", "1")

# figure and CPU cost of one run
Measure = Callable[[Variant], "tuple[float, float]"]


@dataclass(frozen=True)
class Work:
    """A row of the table before it is measured."""

    name: str
    unit: str
    less_is_better: bool
    target: Target | None
    measure: Measure


def sockbench(tool: Path, path: Path3 | None, mode: str, *options: str) -> Measure:
    """A row measured by sockbench, on loopback or from one namespace to the next."""

    def measure(variant: Variant) -> tuple[float, float]:
        command = [str(tool), mode, *options]
        if path:
            server = ["--server-netns", f"/run/netns/{path.proxy}"]
            command += [*server, "--address", environment.PROXY_ADDRESS]
        text = environment.run(variant, command, path.client if path else None)
        said = json.loads(text)
        if mode == "pingpong":
            return said["p50_us"], said["cpu_us"]
        return said["gbits"], said["cpu_per_gb"]

    return measure


def micro(tool: Path, path: Path3) -> list[Work]:
    """Ping-pong and one-way streams, by sockbench."""
    works: list[Work] = []

    def add(name: str, target: Target | None, over: Path3 | None, mode: str, *options: str) -> None:
        latency = mode == "pingpong"
        length = ("--seconds", "0.4" if latency else "0.6")
        measure = sockbench(tool, over, mode, *options, *length)
        works.append(Work(name, "us" if latency else "Gbit/s", latency, target, measure))

    for where, over in (("lo", None), ("netns", path)):
        for label, size in (("64", "64"), ("16k", "16384")):
            name = f"{where} ping-pong {label}"
            add(f"{name}, 1 cpu", PINGPONG, over, "pingpong", "--size", size, *ONE_CPU)
            add(f"{name}, 2 cpus", NOT_SLOWER, over, "pingpong", "--size", size, *TWO_CPUS)
        for label, size in (("64k", "65536"), ("8k", "8192"), ("1k", "1024")):
            for cpus, options in (("1 cpu", ONE_CPU), ("2 cpus", TWO_CPUS)):
                name = f"{where} bulk {label}, {cpus}"
                add(name, NOT_SLOWER, over, "bulk", "--size", size, *options)
    name = "lo bulk 64k, event loop, 1 cpu"
    add(name, NOT_SLOWER, None, "bulk", "--size", "65536", "--event-loop", *ONE_CPU)
    return works


def floors(tool: Path) -> list[Work]:
    """The same over a unix socket: what two processes of a host can reach, in either variant."""
    pingpong = ("--unix", "--size", "64", "--seconds", "0.4", *ONE_CPU)
    bulk = ("--unix", "--size", "65536", "--seconds", "0.6", *ONE_CPU)
    return [
        Work(
            "unix ping-pong 64, 1 cpu",
            "us",
            True,
            None,
            sockbench(tool, None, "pingpong", *pingpong),
        ),
        Work("unix bulk 64k, 1 cpu", "Gbit/s", False, None, sockbench(tool, None, "bulk", *bulk)),
    ]


def web(stack: ExitStack, variants: list[Variant], scratch: Path, path: Path3) -> list[Work]:
    """nginx in front of two nginx, on loopback and across namespaces."""
    works = []
    for where, over, target in (("lo", None, LOOPBACK), ("netns", path, NETNS)):
        sites = {
            each.name: stack.enter_context(nginx.site(each, scratch, over, 18000 + 10 * number))
            for number, each in enumerate(variants)
        }
        rows = [("each/small", "no keep-alive", NOT_SLOWER)]
        rows += [(f"kept/{body}", f"keep-alive {body}", target) for body in nginx.BODIES]
        for url, label, wanted in rows:

            def measure(
                variant: Variant,
                url: str = url,
                sites: dict[str, nginx.Site] = sites,
            ) -> tuple[float, float]:
                return nginx.wrk(sites[variant.name], url, 1)

            works.append(Work(f"{where} nginx, {label}", "req/s", False, wanted, measure))
    return works


def measure_pairs(row: Row, work: Work, variants: list[Variant], pairs: int) -> None:
    """Add `pairs` runs of each variant to the row, interleaved, the first one changing."""
    for turn in range(pairs):
        for each in variants if turn % 2 == 0 else reversed(variants):
            figure, cost = work.measure(each)
            row.figures[each.name].append(figure)
            row.cpu[each.name].append(cost)


def measured(work: Work, variants: list[Variant], pairs: int) -> Row:
    """The work's row. One that misses its target gets twice as many pairs more; all count."""
    figures: dict[str, list[float]] = {each.name: [] for each in variants}
    cpu: dict[str, list[float]] = {each.name: [] for each in variants}
    row = Row(work.name, work.unit, work.less_is_better, figures, cpu, work.target)
    measure_pairs(row, work, variants, pairs)
    if not table.held(row):
        measure_pairs(row, work, variants, 2 * pairs)
    return row


def changes(before: dict[str, int], after: dict[str, int]) -> str:
    """What the data plane counted in between."""
    moved = {name: after[name] - before[name] for name in after}
    return " ".join(f"{name}={value}" for name, value in moved.items() if value)


def compile_tools(scratch: Path) -> tuple[Path, Path]:
    """Build sockbench and the seed's programs."""
    tool, built = scratch / "sockbench", scratch / "seed.bpf.o"
    environment.call("cc", "-O2", "-o", str(tool), str(HERE / "sockbench.c"))
    include = f"/usr/include/{environment.call('cc', '-print-multiarch').strip()}"
    flags = ["-g", "-O2", "-target", "bpf", "-idirafter", include]
    environment.call("clang", *flags, "-c", str(HERE / "seed.bpf.c"), "-o", str(built))
    return tool, built


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each variant (default: 5)")
    parser.add_argument("--counters", action="store_true", help="what the data plane counted, too")
    parser.add_argument("--list", action="store_true", help="only say which rows there are")
    return parser.parse_args()


def main() -> int:
    """Set everything up, measure, print, take everything down."""
    options = arguments()
    if not OBJECT.exists():
        sys.stderr.write(f"{OBJECT} is not built: make bpf\n")
        return 2
    if missing := nginx.tools():
        sys.stderr.write(f"not installed: {' '.join(missing)}\n")
        return 2
    environment.become_private()
    began = time.monotonic()
    rows: list[Row] = []
    with ExitStack() as stack:
        scratch = stack.enter_context(environment.scratch())
        tool, seed = compile_tools(scratch)
        names = ["plain", "ours", "seed"]
        variants = [stack.enter_context(environment.variant(name)) for name in names]
        pins = stack.enter_context(environment.bpffs(scratch))
        path = stack.enter_context(environment.namespaces())
        maps = stack.enter_context(environment.accelerated(variants[1], OBJECT, pins, policy=True))
        stack.enter_context(environment.accelerated(variants[2], seed, pins, policy=False))
        works = micro(tool, path) + floors(tool) + web(stack, variants, scratch, path)
        chosen = [work for work in works if options.rows in work.name]
        if options.list:
            print("\n".join(work.name for work in chosen))
            return 0
        print(table.HEADER, flush=True)
        before = environment.counters(maps)
        used = environment.machine_seconds() - sum(map(environment.cpu_seconds, variants))
        since = time.monotonic()
        for work in chosen:
            rows.append(measured(work, variants, options.pairs))
            print("\n".join(table.lines(rows[-1])), flush=True)
            after = environment.counters(maps)
            if options.counters:
                print(f"    {changes(before, after)}", flush=True)
            before = after
        used = environment.machine_seconds() - sum(map(environment.cpu_seconds, variants)) - used
        share = used / (time.monotonic() - since) / (os.cpu_count() or 1)
    print(f"{time.monotonic() - began:.0f} s, {options.pairs} pairs a row at least")
    print(f"everything else used {share:.0%} of the CPUs; above 10 % the figures mean little")
    table.keep(rows, "The sockmap data plane against plain TCP.")
    print(table.verdict(rows))
    return 0 if table.all_held(rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
