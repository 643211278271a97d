# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the lab's services in several states, interleaved, and print the figures side by side."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields

from cgroups import LabError
from fabric import ssh
from layout import FRONTEND_KEEPALIVE, FRONTEND_PLAIN, PINGPONG_PORT, Host
from progress import step

ROUNDS = 3


@dataclass(frozen=True)
class Cell:
    """One load: a row group of the table. `unit` is what is counted, `command` what a host runs."""

    title: str
    unit: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Figures:
    """What one load did and what it cost."""

    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float
    lo_bytes: float


CELLS = (
    Cell(
        "wrk -c100, nginx with upstream keep-alive, 16 B",
        "request",
        ("wrk", f"http://127.0.0.1:{FRONTEND_KEEPALIVE}/", "1"),
    ),
    Cell(
        "wrk -c100, nginx with upstream keep-alive, 16 KiB",
        "request",
        ("wrk", f"http://127.0.0.1:{FRONTEND_KEEPALIVE}/16k.txt", "1"),
    ),
    Cell(
        "wrk -c100, nginx without upstream keep-alive, 16 B",
        "request",
        ("wrk", f"http://127.0.0.1:{FRONTEND_PLAIN}/", "1"),
    ),
    Cell(
        "ping-pong, 64 B, one connection, one CPU",
        "round trip",
        ("pingpong", str(PINGPONG_PORT), "64", "0.5"),
    ),
)

# Label in the table, format and field, in the order of the rows. More of the first is better, less of the others.
ROWS = (
    ("{unit}s/s", "{:,.0f}", "per_second"),
    ("p50, µs", "{:,.1f}", "p50_us"),
    ("p99, µs", "{:,.1f}", "p99_us"),
    ("CPU of the servers, µs/{unit}", "{:,.1f}", "cpu_us"),
    ("bytes over lo/{unit}", "{:,.0f}", "lo_bytes"),
)

Table = dict[str, list[Figures]]


def prepare(hosts: Sequence[Host]) -> None:
    """New connections on every host: a connection keeps the state it was made in."""
    for host in hosts:
        ssh(host, "clang", "-O2", "-o", "/usr/local/sbin/pingpong", "/usr/local/src/pingpong.c")
        ssh(host, "web", "restart")


def measure(states: dict[str, Host], rounds: int = ROUNDS) -> Table:
    """Every cell on each host in turn, never two at once; the order changes with each round.

    Returns, for each state, the medians in the order of CELLS.
    """
    names = list(states)
    table: Table = {name: [] for name in names}
    for cell in CELLS:
        with step(cell.title):
            samples: Table = {name: [] for name in names}
            for number in range(rounds):
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    samples[name].append(sample(states[name], cell))
        for name in names:
            table[name].append(median(samples[name]))
    return table


def sample(host: Host, cell: Cell) -> Figures:
    answer = json.loads(ssh(host, "python3", "/usr/local/sbin/measure", *cell.command).stdout)
    if answer["errors"] or not answer["count"]:
        raise LabError(
            f"{cell.title} on {host.name}: {answer['errors']} errors in {answer['count']}"
        )
    return Figures(
        per_second=answer["count"] / answer["seconds"],
        p50_us=answer["p50_us"],
        p99_us=answer["p99_us"],
        cpu_us=answer["cpu_us"] / answer["count"],
        lo_bytes=answer["lo_bytes"] / answer["count"],
    )


def median(samples: list[Figures]) -> Figures:
    values = {
        field.name: statistics.median(getattr(one, field.name) for one in samples)
        for field in fields(Figures)
    }
    return Figures(**values)


def document(table: Table, title: str, note: str) -> dict[str, object]:
    """The same for report.yml, which says in docs/report.md what it reads."""
    return {
        "title": title,
        "note": note,
        "figures": [
            {
                "what": cell.title,
                "measure": label.format(unit=cell.unit),
                "better": "higher" if key == "per_second" else "lower",
                "values": {name: getattr(found[index], key) for name, found in table.items()},
            }
            for index, cell in enumerate(CELLS)
            for label, _form, key in ROWS
        ],
    }


def render(table: Table) -> list[str]:
    """The table as lines; each state after the first with its ratio to the first."""
    names = list(table)
    lines = [" " * 34 + "".join(f"{name:>20}" for name in names)]
    for index, cell in enumerate(CELLS):
        lines.append(cell.title)
        for label, form, key in ROWS:
            values = [getattr(table[name][index], key) for name in names]
            columns = [f"{form.format(values[0]):>20}"]
            columns += [
                f"{form.format(value):>12}  x{value / values[0]:5.2f}" for value in values[1:]
            ]
            lines.append(f"  {label.format(unit=cell.unit):<32}" + "".join(columns))
    return lines
