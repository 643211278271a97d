# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The geometry of a diagram of flows: who, through which hook, to whom. Units are SVG's.

Bands are as wide as what flows through them. The hook is a box with its name in it; who and whom
are bars with their names beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

WIDTH = 960
_MARGIN, _BAR, _BOX, _BOX_HEIGHT = 206, 7, 196, 40
_GAP, _ROW = 12, 30
_LEAST = 1.5  # the width of a band through which nothing flows
_LINE = 15
_MEANINGS = ("good", "plain")


@dataclass(frozen=True)
class Node:
    """Who, a hook, or whom: its name, what is said below it, and a class of the style sheet."""

    name: str
    note: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Flow:
    """What flows from a node through another to a third."""

    source: Node
    hook: Node
    target: Node
    value: int
    kind: str


@dataclass(frozen=True)
class Shape:
    """A node's place; ``text_x`` and ``anchor`` are where its name goes."""

    node: Node
    x: float
    y: float
    width: float
    height: float
    text_x: float
    anchor: str
    total: int

    @property
    def middle(self) -> float:
        return round(self.y + self.height / 2, 1)


@dataclass(frozen=True)
class Band:
    """One half of a flow: an outline, its class, and what it says when pointed at."""

    path: str
    kind: str
    title: str


@dataclass(frozen=True)
class Diagram:
    """All of it."""

    width: int
    height: int
    bands: tuple[Band, ...]
    shapes: tuple[Shape, ...]
    unit: str
    total: int


def draw(flows: Sequence[Flow], unit: str, limit: int = 10) -> Diagram | None:
    """The diagram; None without flows. At most ``limit`` nodes a column keep their names."""
    if not flows:
        return None
    flows = merged(_limited(_limited(_limited(flows, 0, limit), 1, limit), 2, limit))
    columns = [list(dict.fromkeys(_node(flow, place) for flow in flows)) for place in range(3)]
    total = sum(flow.value for flow in flows)
    room = min(max(max(map(len, columns)) * _ROW, 110), 380)
    scale = room / total if total else 0.0
    heights = [_heights(column, flows, place, scale) for place, column in enumerate(columns)]
    tall = max(sum(each.values()) + _GAP * (len(each) - 1) for each in heights)
    left = (_MARGIN, (WIDTH - _BOX) / 2, WIDTH - _MARGIN - _BAR)
    shapes = []
    for place, column in enumerate(columns):
        used = sum(heights[place].values()) + _GAP * (len(column) - 1)
        y = 6 + (tall - used) / 2
        for node in column:
            carried = sum(flow.value for flow in flows if _node(flow, place) == node)
            shapes.append(_shape(node, place, left[place], y, heights[place][node], carried))
            y += heights[place][node] + _GAP
    by_node = [{each.node: each for each in shapes if each.node in column} for column in columns]
    bands = [
        *_bands(flows, by_node, scale, (0, 1), unit),
        *_bands(flows, by_node, scale, (1, 2), unit),
    ]
    return Diagram(WIDTH, round(tall + 12), tuple(bands), tuple(shapes), unit, total)


def _node(flow: Flow, place: int) -> Node:
    return (flow.source, flow.hook, flow.target)[place]


def merged(flows: Iterable[Flow]) -> list[Flow]:
    """Flows between the same nodes as one, those of the same nodes next to each other."""
    found: dict[tuple[Node, Node, Node, str], int] = {}
    for flow in flows:
        key = (flow.source, flow.hook, flow.target, flow.kind)
        found[key] = found.get(key, 0) + flow.value
    return [Flow(*key[:3], value, key[3]) for key, value in found.items()]


def _limited(flows: Sequence[Flow], place: int, limit: int) -> list[Flow]:
    """Of a column only the nodes with most; the others become one."""
    totals: dict[Node, int] = {}
    for flow in flows:
        node = _node(flow, place)
        totals[node] = totals.get(node, 0) + flow.value
    if len(totals) <= limit:
        return list(flows)
    kept = set(sorted(totals, key=lambda node: -totals[node])[: limit - 1])
    others = Node(f"{len(totals) - len(kept)} others", "in the tables below", "others")

    def renamed(flow: Flow) -> Flow:
        if _node(flow, place) in kept:
            return flow
        if place == 0:
            # A colour stands for one source; other kinds say something of the flow.
            kind = flow.kind if flow.kind in _MEANINGS else "others"
            return replace(flow, source=others, kind=kind)
        return replace(flow, hook=others) if place == 1 else replace(flow, target=others)

    # The others come last.
    return sorted(map(renamed, flows), key=lambda flow: _node(flow, place) == others)


def _thickness(value: int, scale: float) -> float:
    return max(_LEAST, value * scale)


def _heights(
    column: Sequence[Node], flows: Sequence[Flow], place: int, scale: float
) -> dict[Node, float]:
    least = _BOX_HEIGHT if place == 1 else 2 * _LINE - 4
    found = {}
    for node in column:
        parts = [_thickness(flow.value, scale) for flow in flows if _node(flow, place) == node]
        found[node] = max(float(least), sum(parts))
    return found


def _shape(node: Node, place: int, x: float, y: float, height: float, total: int) -> Shape:
    width = _BOX if place == 1 else _BAR
    text, anchor = {
        0: (x - 10, "end"),
        1: (x + _BOX / 2, "middle"),
        2: (x + _BAR + 10, "start"),
    }[place]
    return Shape(node, x, round(y, 1), width, round(height, 1), text, anchor, total)


def _bands(
    flows: Sequence[Flow],
    shapes: Sequence[Mapping[Node, Shape]],
    scale: float,
    places: tuple[int, int],
    unit: str,
) -> list[Band]:
    """The halves between two columns. At either end they lie in the order of the other."""
    here, there = places
    tops = [
        _stacked(flows, shapes, scale, (here, there)),
        _stacked(flows, shapes, scale, (there, here)),
    ]
    bands = []
    for number, flow in enumerate(flows):
        start, end = shapes[here][_node(flow, here)], shapes[there][_node(flow, there)]
        width = _thickness(flow.value, scale)
        title = f"{flow.source.name} → {flow.hook.name} → {flow.target.name}: {flow.value:,} {unit}"
        kind = flow.kind if flow.value else f"{flow.kind} idle"
        path = _ribbon(start.x + start.width, tops[0][number], end.x, tops[1][number], width)
        bands.append(Band(path, kind, title))
    return bands


def _stacked(
    flows: Sequence[Flow],
    shapes: Sequence[Mapping[Node, Shape]],
    scale: float,
    places: tuple[int, int],
) -> list[float]:
    """Where each flow begins at its node of the first of two columns, centred in it."""
    here, there = places
    order = sorted(
        range(len(flows)),
        key=lambda number: (
            shapes[here][_node(flows[number], here)].y,
            shapes[there][_node(flows[number], there)].y,
            shapes[0][flows[number].source].y,
            shapes[2][flows[number].target].y,
        ),
    )

    def width(number: int) -> float:
        return _thickness(flows[number].value, scale)

    free: dict[Node, float] = {}
    tops = [0.0] * len(flows)
    for number in order:
        node = _node(flows[number], here)
        if node not in free:
            used = sum(width(each) for each in order if _node(flows[each], here) == node)
            shape = shapes[here][node]
            free[node] = shape.y + (shape.height - used) / 2
        tops[number] = free[node]
        free[node] += width(number)
    return tops


def _ribbon(x0: float, y0: float, x1: float, y1: float, width: float) -> str:
    middle = (x0 + x1) / 2
    return (
        f"M{x0:.1f} {y0:.1f}C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
        f"v{width:.1f}C{middle:.1f} {y1 + width:.1f} {middle:.1f} {y0 + width:.1f}"
        f" {x0:.1f} {y0 + width:.1f}Z"
    )
