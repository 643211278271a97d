# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of interleaved runs, their ratios, and whether the targets are held."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path

YARDSTICKS = ("seed", "floor")


@dataclass(frozen=True)
class Target:
    """A bound on the median of the pair ratios; a ratio says how many times better ours is."""

    at_least: float
    what: str


@dataclass(frozen=True)
class Row:
    """One kind of work, measured in each variant as often as in the others.

    figures: variant → one value a run, in `unit`; the first variant is what the others are compared
    with. cpu: the same, CPU per unit of work, where that is known. judged: the variant that the
    target is for.
    """

    name: str
    unit: str
    less_is_better: bool
    figures: dict[str, list[float]]
    cpu: dict[str, list[float]]
    target: Target | None
    judged: str = "ours"


def gains(row: Row, variant: str) -> list[float]:
    """How many times better than the first variant each run of `variant` was, pair by pair."""
    pairs = zip(next(iter(row.figures.values())), row.figures[variant])
    return [p / v if row.less_is_better else v / p for p, v in pairs]


def bound(row: Row) -> float:
    """What the median gain has to reach: the target or, where it reaches less, 0.97 of a yardstick's.

    The yardstick is a variant of what is measured that does less than it has to: the seed redirects
    everything without keeping the order, the floor balances without looking. What it cannot reach
    on a machine is not to be had there.
    """
    assert row.target is not None
    _first, *others = row.figures
    yardsticks = [name for name in others if name in YARDSTICKS]
    reached = [0.97 * statistics.median(gains(row, name)) for name in yardsticks]
    return min([row.target.at_least, *reached])


def held(row: Row) -> bool:
    """Whether the median of the pair ratios reaches its bound; a row without a target holds."""
    return row.target is None or statistics.median(gains(row, row.judged)) >= bound(row)


def all_held(rows: list[Row]) -> bool:
    """Whether no row misses its bound."""
    return all(held(row) for row in rows)


def spread(values: list[float]) -> str:
    """min, median and max in three columns."""
    return f"{min(values):9.2f}{statistics.median(values):9.2f}{max(values):9.2f}"


def lines(row: Row) -> list[str]:
    """The row's part of the table, one line a variant."""
    text = []
    first = next(iter(row.figures))
    for variant, values in row.figures.items():
        name = row.name if variant == first else ""
        line = f"{name:34}{row.unit:8}{variant:9}{spread(values)}"
        if variant != first:
            ratios = gains(row, variant)
            line += f"  x{statistics.median(ratios):5.2f} ({min(ratios):.2f} {max(ratios):.2f})"
        if variant != first and row.cpu:
            costs = zip(row.cpu[first], row.cpu[variant])
            line += f"  cpu x{statistics.median(v / p for p, v in costs if p > 0):4.2f}"
        if variant == row.judged and row.target is not None:
            verdict = "held" if held(row) else "MISSED"
            less = " (the yardstick's)" if bound(row) < row.target.at_least else ""
            line += f"  {row.target.what} >= {bound(row):.2f}{less}: {verdict}"
        text.append(line)
    return text


HEADER = f"{'work':34}{'unit':8}{'':9}{'min':>9}{'median':>9}{'max':>9}  gain against the first"


def keep(rows: list[Row], title: str) -> None:
    """Write the medians into the file that EBPF_FLEET_FIGURES names, for report.yml."""
    file = os.environ.get("EBPF_FLEET_FIGURES")
    if not file:
        return
    figures = [
        {
            "what": row.name,
            "measure": row.unit,
            "better": "lower" if row.less_is_better else "higher",
            "values": {name: statistics.median(found) for name, found in row.figures.items()},
        }
        for row in rows
    ]
    document = {"title": title, "note": "Medians of interleaved runs.", "figures": figures}
    Path(file).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def verdict(rows: list[Row]) -> str:
    """The last line of every benchmark."""
    judged = [row for row in rows if row.target is not None]
    missed = sum(not held(row) for row in judged)
    return f"targets: {len(judged) - missed} held, {missed} missed"
