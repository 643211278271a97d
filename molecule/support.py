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


def proved(matrix: Matrix, records: list[Record]) -> Support:
    """What the scenarios of a run said to have proved, and what the machines said to be."""
    machines: dict[str, dict[str, str]] = {}
    for record in records:
        machines.update(record.said.get("_run", {}).get("machines", {}))
    known = {name: machines[name] for name in matrix.machines if name in machines}
    said = {
        machine: {
            scenario.name: features_of(
                machine, [record for record in records if record.scenario == scenario.name]
            )
            for scenario in matrix.scenarios
        }
        for machine in known
    }
    features = {
        feature.key: {
            machine: said[machine][feature.scenario][feature.key]
            for machine in known
            if feature.key in said[machine].get(feature.scenario, {})
        }
        for feature in matrix.features
    }
    return Support(datetime.date.today().isoformat(), known, features)


def read(file: Path = DATA) -> Support:
    """What the last whole run proved."""
    return Support(**json.loads(file.read_text(encoding="utf-8")))


def update(matrix: Matrix, records: list[Record]) -> None:
    """Write both files from a whole run; nothing is written when nothing but the date is new."""
    now = proved(matrix, records)
    if DATA.exists():
        before = read()
        if (before.machines, before.features) == (now.machines, now.features):
            now = before
    DATA.write_text(json.dumps(asdict(now), indent=2) + "\n", encoding="utf-8")
    write_readme(matrix, now)


def contradictions(matrix: Matrix, records: list[Record]) -> list[str]:
    """Where a run proved something else than docs/support.json says of the same kernel."""
    if not DATA.exists():
        return []
    before, now = read(), proved(matrix, records)
    found = []
    for key, cells in now.features.items():
        for machine, cell in cells.items():
            same = before.machines.get(machine) == now.machines[machine]
            said = before.features.get(key, {}).get(machine)
            if same and said != cell:
                found.append(f"{key} on {machine}: now `{cell}`, docs/support.json has `{said}`")
    return found


def reason(matrix: Matrix, feature: Feature, machine: str) -> str:
    """Why the feature has no cell for that machine."""
    words = feature.without.get(machine, "") or matrix.scenario(feature.scenario).without.get(
        machine, ""
    )
    return words or "not tried there"


def table(matrix: Matrix, support: Support) -> str:
    """The table as Markdown: features by machines; below it why cells are empty."""
    names = list(support.machines)
    facts = support.machines
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
                cell = f"no ({reasons.index(why) + 1})"
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
