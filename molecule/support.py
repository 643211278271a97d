# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is supported where: docs/support.json has what a whole run proved, the README a table.

support.py    write the README's table anew from docs/support.json
"""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import scenarios
from results import Record, features_of
from scenarios import Feature, Matrix

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "support.json"
README = ROOT / "README.md"
BEGIN = "<!-- written by `make molecule` from docs/support.json: begin -->"
END = "<!-- written by `make molecule` from docs/support.json: end -->"


@dataclass(frozen=True)
class Support:
    """What each machine is (debian, kernel, libbpf, python), and what was proved on which."""

    date: str
    machines: dict[str, dict[str, str]]
    features: dict[str, dict[str, str]]


def proved(matrix: Matrix, records: list[Record], passed: set[tuple[str, str]]) -> Support:
    """What the scenarios that passed on a machine said to have proved there."""
    machines: dict[str, dict[str, str]] = {}
    for record in records:
        machines.update(record.said.get("_run", {}).get("machines", {}))
    features: dict[str, dict[str, str]] = {}
    for feature in matrix.features:
        mine = [record for record in records if record.scenario == feature.scenario]
        said = {name: features_of(name, mine).get(feature.key, "") for name in machines}
        features[feature.key] = {
            name: said[name]
            for name in matrix.machines
            if said.get(name) and (feature.scenario, name) in passed
        }
    return Support(datetime.date.today().isoformat(), machines, features)


def merged(matrix: Matrix, before: Support, now: Support) -> Support:
    """Both; what was proved on a machine that has another kernel or libbpf now is forgotten."""
    facts = {**before.machines, **now.machines}
    kept = {name for name, known in before.machines.items() if facts[name] == known}
    return Support(
        now.date,
        {name: facts[name] for name in matrix.machines if name in facts},
        {
            feature.key: {
                name: cell
                for name in matrix.machines
                for cell in [
                    now.features.get(feature.key, {}).get(name)
                    or (before.features.get(feature.key, {}).get(name) if name in kept else None)
                ]
                if cell
            }
            for feature in matrix.features
        },
    )


def read(file: Path = DATA) -> Support:
    """What runs have proved so far."""
    if not file.exists():
        return Support("", {}, {})
    return Support(**json.loads(file.read_text(encoding="utf-8")))


def update(matrix: Matrix, records: list[Record], passed: set[tuple[str, str]]) -> None:
    """Write both files; nothing is written when nothing but the date is new."""
    before = read()
    now = merged(matrix, before, proved(matrix, records, passed))
    if (before.machines, before.features) == (now.machines, now.features):
        now = before
    DATA.write_text(json.dumps(asdict(now), indent=2) + "\n", encoding="utf-8")
    write_readme(matrix, now)


def contradictions(
    matrix: Matrix, records: list[Record], passed: set[tuple[str, str]]
) -> list[str]:
    """Where a run proved something else than docs/support.json says of the same kernel."""
    before, now = read(), proved(matrix, records, passed)
    found = []
    for key, cells in now.features.items():
        for machine, cell in cells.items():
            same = before.machines.get(machine) == now.machines[machine]
            said = before.features.get(key, {}).get(machine)
            if same and said not in (None, cell):
                found.append(f"{key} on {machine}: now `{cell}`, docs/support.json has `{said}`")
    return found


def reason(matrix: Matrix, feature: Feature, machine: str) -> str:
    """Why the feature has no cell for that machine."""
    words = feature.without.get(machine, "") or matrix.scenario(feature.scenario).without.get(
        machine, ""
    )
    return words or "not proved yet"


def table(matrix: Matrix, support: Support) -> str:
    """The table as Markdown: features by machines; below it why cells are empty."""
    names, facts = list(support.machines), support.machines
    if not names:
        return "Nothing was proved yet."
    rows = [
        ["", *(f"Debian {facts[name]['debian']}" for name in names)],
        ["---"] * (len(names) + 1),
        ["Linux", *(facts[name]["kernel"] for name in names)],
        ["libbpf", *(facts[name]["libbpf"] for name in names)],
        ["Python", *(facts[name]["python"] for name in names)],
    ]
    reasons: list[str] = []
    for feature in matrix.features:
        cells = [feature.title]
        for name in names:
            cell = support.features.get(feature.key, {}).get(name)
            if cell is None:
                why = reason(matrix, feature, name)
                reasons += [] if why in reasons else [why]
                cell = f"({reasons.index(why) + 1})"
            cells.append(cell)
        rows.append(cells)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"{number}. {why}" for number, why in enumerate(reasons, 1)]
    return "\n".join([f"Proved on {support.date}:", "", *lines, "", *notes]).rstrip()


def in_readme(text: str, made: str) -> str:
    """The README with that table between its markers; raises ValueError when they are not there."""
    before, rest = text.split(BEGIN)
    _old, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def write_readme(matrix: Matrix, support: Support) -> None:
    """Put the table into the README."""
    text = README.read_text(encoding="utf-8")
    README.write_text(in_readme(text, table(matrix, support)), encoding="utf-8")


if __name__ == "__main__":
    write_readme(scenarios.read(), read())
