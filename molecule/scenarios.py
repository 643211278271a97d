# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios and features of matrix.yml, and what is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PLAYBOOKS = ("prepare", "converge", "verify", "side_effect", "cleanup")
SHARED = ("default", "shared", "machines", "callback")  # directories that are no scenarios
FIRST = "ansible.builtin.import_playbook"


@dataclass(frozen=True)
class Scenario:
    """A scenario, the machines in its groups, and why the others are in none.

    `together`: it works with all its machines only. `sample`: those on which `make test` runs it.
    """

    name: str
    what: str
    groups: dict[str, tuple[str, ...]]
    without: dict[str, str]
    sample: tuple[str, ...]
    together: bool

    @property
    def machines(self) -> tuple[str, ...]:
        """Every machine that is in one of the groups, once."""
        return tuple(dict.fromkeys(name for group in self.groups.values() for name in group))

    def on(self, booted: tuple[str, ...], *, sample: bool = False) -> tuple[str, ...]:
        """Its machines, or its sample, among these; none where it needs one more."""
        mine = self.sample if sample else self.machines
        there = tuple(name for name in mine if name in booted)
        return () if self.together and set(there) != set(self.machines) else there


@dataclass(frozen=True)
class Feature:
    """A row of the support table: what a scenario's verify says that it has proved."""

    key: str
    title: str
    scenario: str
    without: dict[str, str]


@dataclass(frozen=True)
class Matrix:
    """Everything that matrix.yml says; the machines by name, in its order, as they stand there."""

    machines: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]
    scenarios: tuple[Scenario, ...]
    features: tuple[Feature, ...]

    def scenario(self, name: str) -> Scenario:
        """The scenario of that name; raises SystemExit when there is none."""
        for scenario in self.scenarios:
            if scenario.name == name:
                return scenario
        known = ", ".join(scenario.name for scenario in self.scenarios)
        raise SystemExit(f"molecule/matrix.yml has no scenario {name}. It has: {known}")


def read(path: Path = HERE / "matrix.yml") -> Matrix:
    """The matrix in that file."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    return Matrix(
        machines=found["machines"],
        images=found["images"],
        scenarios=tuple(
            Scenario(
                name=name,
                what=said["what"],
                groups={group: tuple(names) for group, names in said["groups"].items()},
                without=said.get("without", {}),
                sample=tuple(said.get("sample", ())),
                together=said.get("together", False),
            )
            for name, said in found["scenarios"].items()
        ),
        features=tuple(
            Feature(key, said["title"], said["scenario"], said.get("without", {}))
            for key, said in found["features"].items()
        ),
    )


def faults(matrix: Matrix, names: list[str]) -> list[str]:
    """What is wrong before anything is booted, with these scenarios or, without names, with any."""
    files = [fault for name in names for fault in scenario_faults(name)]
    return [
        *table_faults(matrix),
        *feature_faults(matrix),
        *(files if names else file_faults(matrix, HERE)),
    ]


def table_faults(matrix: Matrix) -> Iterator[str]:
    """Scenarios whose machines are unknown, missing without a reason, or none."""
    for scenario in matrix.scenarios:
        name, machines = scenario.name, set(scenario.machines)
        for group, members in scenario.groups.items():
            if not members:
                yield f"{name}: no hosts: its group {group} is empty"
        for machine in sorted((machines | set(scenario.sample)) - set(matrix.machines)):
            yield f"{name}: there is no machine {machine}"
        for machine in matrix.machines:
            if (machine in machines) == bool(scenario.without.get(machine)):
                yield f"{name}: {machine} has to be either in a group or in `without` with a reason"
        if not set(scenario.sample) <= machines:
            yield f"{name}: its sample has machines that are in none of its groups"
        if scenario.together and scenario.sample and set(scenario.sample) != machines:
            yield f"{name}: works with all its machines only, its sample has some of them"


def feature_faults(matrix: Matrix) -> Iterator[str]:
    """Rows of the support table that no scenario could prove."""
    scenarios = {scenario.name: scenario for scenario in matrix.scenarios}
    for feature in matrix.features:
        if feature.scenario not in scenarios:
            yield f"feature {feature.key}: there is no scenario {feature.scenario}"
            continue
        for machine in feature.without:
            if machine not in scenarios[feature.scenario].machines:
                yield f"feature {feature.key}: {machine} is not in scenario {feature.scenario}"


def file_faults(matrix: Matrix, here: Path) -> Iterator[str]:
    """Scenarios without a directory, directories without a scenario, playbooks without tasks."""
    named = {scenario.name for scenario in matrix.scenarios}
    there = {path.name for path in here.iterdir() if (path / "molecule.yml").is_file()}
    for name in sorted(there - named - set(SHARED)):
        yield f"{name}: is a scenario, and matrix.yml does not name it"
    for name in sorted(named):
        yield from scenario_faults(name, here)


def scenario_faults(name: str, here: Path = HERE) -> Iterator[str]:
    """What a scenario's directory lacks, or has that it must not."""
    file = here / name / "molecule.yml"
    if not file.is_file():
        yield f"{name}: molecule/{name}/molecule.yml is missing"
        return
    said = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    for key in sorted(set(said) & {"scenario", "ansible", "provisioner", "verifier"}):
        yield f"{name}: molecule.yml must leave `{key}` to molecule/config.yml"
    for playbook in PLAYBOOKS:
        yield from playbook_faults(f"{name}/{playbook}.yml", here)


def playbook_faults(path: str, here: Path) -> Iterator[str]:
    """A playbook that is missing, does not ask for hosts first, or has no task for them."""
    file = here / path
    if not file.is_file():
        yield f"molecule/{path} is missing"
        return
    plays = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    first = str(plays[0].get(FIRST, "")) if plays else ""
    if not first or (file.parent / first).resolve() != (here / "shared/hosts.yml").resolve():
        yield f"molecule/{path}: its first play must be `{FIRST}: ../shared/hosts.yml`"
    if not any(play.get(key) for play in plays[1:] for key in (FIRST, "tasks", "roles")):
        yield f"molecule/{path}: does nothing on any host"


if __name__ == "__main__":
    found = faults(read(), sys.argv[1:])
    print("\n".join(found))
    sys.exit(1 if found else 0)
