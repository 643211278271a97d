# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures that were measured before and after, as bars next to each other.

The file is JSON: an object with ``title``, ``note`` and ``figures``, a list of objects with
``what`` (the load), ``measure`` (what was measured, with its unit), ``better`` (``higher`` or
``lower``) and ``values``, a number for each state. The others are compared with the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A state's figure; ``ratio`` to the first's, 0 for that itself; ``width`` in per cent."""

    state: str
    text: str
    width: float
    ratio: float
    verdict: str
    kind: str


@dataclass(frozen=True)
class Measure:
    """What was measured, in each state."""

    name: str
    better: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Load:
    """All that was measured under one load."""

    name: str
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class Figures:
    """All of it."""

    title: str
    note: str
    loads: tuple[Load, ...]


class NoFigures(ValueError):
    """The file is not what it should be. The text says how."""


def read(found: Mapping[str, Any]) -> Figures | None:
    """What the file holds; None for an empty one. Raises NoFigures."""
    if not found:
        return None
    try:
        loads: dict[str, list[Measure]] = {}
        for each in found["figures"]:
            loads.setdefault(str(each["what"]), []).append(_measure(each))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NoFigures(
            "the figures are to be an object with a list `figures`, each with `what`, `measure`, "
            f"`better` and numbers in `values`: {error!r}"
        ) from error
    return Figures(
        str(found.get("title", "")),
        str(found.get("note", "")),
        tuple(Load(name, tuple(measures)) for name, measures in loads.items()),
    )


def _measure(found: Mapping[str, Any]) -> Measure:
    values = {str(state): float(value) for state, value in found["values"].items()}
    if not values:
        raise ValueError("values are empty")
    better = str(found["better"])
    if better not in ("higher", "lower"):
        raise ValueError(f"better: {better!r} is neither higher nor lower")
    first, most = next(iter(values.values())), max(values.values())
    bars = []
    for number, (state, value) in enumerate(values.items()):
        ratio = value / first if number and first > 0 else 0.0
        bars.append(
            Bar(
                state,
                amount(value),
                round(100 * value / most, 2) if most > 0 else 0.0,
                ratio,
                _verdict(ratio, better),
                f"s{min(number, 3)}",
            )
        )
    return Measure(str(found["measure"]), better, tuple(bars))


def _verdict(ratio: float, better: str) -> str:
    """Differences below five per cent are taken for noise."""
    if not ratio or abs(ratio - 1) < 0.05:
        return ""
    return "better" if (ratio > 1) == (better == "higher") else "worse"


def amount(value: float) -> str:
    """A number with three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
