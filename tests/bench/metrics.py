# SPDX-License-Identifier: GPL-3.0-or-later
"""What it costs a host to be scraped.

    metrics.py [--entries N] [--interval SECONDS] [--scrapes N]

A host of a lab of its own has an accelerator, a balancer, and two maps of N entries each: a hash, which is counted in
batches, and one of a type that has no batches, whose keys are walked. Its exporter is scraped at the interval, by curl, and the
processor time that it uses is read from /proc. Added is the share of the engine, which is asked about the stacks every minute or two:
what one time costs, by how often it is. Exits 1 when that is more than 1 % of a core.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "metrics"))

import world
from world import REPOSITORY, inside, scrape, value, values

TARGET = 0.01
TICKS = 100.0  # of /proc/PID/stat, a second (sysconf(_SC_CLK_TCK))
FILL = """
import os, struct, sys
sys.path.insert(0, "{collections}")
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import maps, pins
os.makedirs("/sys/fs/bpf/ebpf_fleet/bench", exist_ok=True)
for kind, value in (("hash", 64), ("devmap_hash", 4)):
    with maps.create(kind, 4, value, {entries} * 2, 0, "bench_" + kind) as fd:
        content = struct.pack("=I", 1) + bytes(value - 4)
        maps.update_all(fd, [(struct.pack("=I", number), content) for number in range({entries})])
        pins.pin(fd, "/sys/fs/bpf/ebpf_fleet/bench/" + kind)
"""


def fill(entries: int) -> None:
    collections = REPOSITORY / ".cache" / "collections"
    inside("python3", "-", stdin=FILL.format(collections=collections, entries=entries))


def processor_seconds(pid: str) -> float:
    """User and system time of a process, without that of its children."""
    fields = inside("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS


def measure(interval: float, scrapes: int) -> tuple[float, float]:
    """The share of one core, and the median seconds that a scrape took."""
    pid = inside("cat", "/run/ebpf-fleet-metrics.pid").strip()
    scrape()
    time.sleep(interval)
    before, start = processor_seconds(pid), time.monotonic()
    took = []
    for dummy in range(scrapes):
        begun = time.monotonic()
        scrape()
        took.append(time.monotonic() - begun)
        time.sleep(interval - took[-1])
    spent = processor_seconds(pid) - before
    return spent / (time.monotonic() - start), sorted(took)[len(took) // 2]


def told(entries: int) -> None:
    """What the exporter says of itself."""
    found = scrape()
    for kind in ("hash", "devmap_hash"):
        (held,) = values(found, "map_entries", map=f"bench_{kind}"[:15])
        assert held == entries, (kind, held)
    print(f"{'collector':14}{'CPU ms':>8}")
    for (name, labels), seconds in sorted(found.items(), key=str):
        if name == "ebpf_fleet_collector_cpu_seconds":
            print(f"{dict(labels)['collector']:14}{1000 * seconds:8.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=15.0)
    parser.add_argument("--scrapes", type=int, default=4)
    options = parser.parse_args()
    try:
        world.up()
        fill(options.entries)
        share, took = measure(options.interval, options.scrapes)
        told(options.entries)
        stacks = value(scrape(), "collector_cpu_seconds", collector="stacks")
        share += stacks / max(60.0, 400 * stacks)
    finally:
        world.down()
    held = share < TARGET
    print(
        f"2 maps of {options.entries} entries, scraped every {options.interval:g} s: {100 * share:.2f} % of one core, "
        f"{1000 * took:.0f} ms a scrape; target < {100 * TARGET:g} %: {'held' if held else 'MISSED'}"
    )
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
