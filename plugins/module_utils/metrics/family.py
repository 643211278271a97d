# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics as Prometheus has them: families of samples, and their text.

The text format is version 0.0.4 of Prometheus' exposition formats. Names carry their unit in base
units (seconds, bytes), and counters end in ``_total``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

PREFIX = "ebpf_fleet_"
GAUGE, COUNTER = "gauge", "counter"

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})
_HELP_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n"})


@dataclass(frozen=True)
class Sample:
    """One number, and the labels that tell it from the others of its family."""

    labels: Mapping[str, str]
    value: float


@dataclass
class Family:
    """All numbers of one name, which is without the prefix; ``kind`` is GAUGE or COUNTER."""

    name: str
    kind: str
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """Add a number."""
        self.samples.append(Sample(labels, float(value)))

    def states(self, current: str, all_of_them: Sequence[str], label: str, **labels: str) -> None:
        """Add one number for each state that there can be: 1 for the current one, 0 for others."""
        for state in all_of_them:
            self.samples.append(Sample({**labels, label: state}, float(state == current)))


def gauge(name: str, text: str) -> Family:
    """A family of numbers that go up and down."""
    return Family(name, GAUGE, text)


def counter(name: str, text: str) -> Family:
    """A family of numbers that only rise, until what they count begins anew."""
    return Family(name, COUNTER, text)


def render(families: Iterable[Family]) -> str:
    """The families as text. One without samples is left out."""
    lines: list[str] = []
    for each in families:
        if not each.samples:
            continue
        name = PREFIX + each.name
        lines.append(f"# HELP {name} {each.help.translate(_HELP_ESCAPES)}")
        lines.append(f"# TYPE {name} {each.kind}")
        lines.extend(f"{name}{_labels(one.labels)} {number(one.value)}" for one in each.samples)
    return "".join(f"{line}\n" for line in lines)


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def number(value: float) -> str:
    """The shortest text of a number; whole ones, such as counters of bytes, have no exponent."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
