# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of each scenario on each machine, read from what callback/record.py wrote."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from scenarios import Matrix, Scenario

PASSED = "passed"


@dataclass(frozen=True)
class Action:
    """A step of molecule's sequence, as a playbook, and whether that runs in check mode."""

    name: str
    playbook: str
    check: bool = False


# The test_sequence of molecule/config.yml, without what happens once for all scenarios.
SEQUENCE = (
    Action("prepare", "prepare"),
    Action("check", "converge", check=True),
    Action("converge", "converge"),
    Action("idempotence", "converge"),
    Action("verify", "verify"),
    Action("side_effect", "side_effect"),
    Action("verify again", "verify"),
    Action("cleanup", "cleanup"),
)
# That of molecule/sample.yml.
SAMPLE = tuple(action for action in SEQUENCE if action.name not in ("check", "idempotence"))


@dataclass(frozen=True)
class Record:
    """One playbook that ran; times in seconds since the epoch."""

    scenario: str
    playbook: str
    check: bool
    began: float
    ended: float
    hosts: dict[str, dict[str, int]]
    said: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Verdict:
    """A scenario on a machine: `passed`, or why not."""

    scenario: str
    machine: str
    why: str

    @property
    def passed(self) -> bool:
        return self.why == PASSED


def read(file: Path) -> list[Record]:
    """The playbooks in that file, in the order in which they ended; none when it is not there."""
    if not file.exists():
        return []
    found: list[Record] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        record = Record(**json.loads(line))
        # A step takes from the end of the one before it: molecule and Ansible have to start, too.
        if found and record.playbook != "create":
            record = replace(record, began=found[-1].ended)
        found.append(record)
    return found


def steps(
    records: list[Record], scenario: str, sequence: tuple[Action, ...]
) -> list[tuple[Action, Record]]:
    """A scenario's last run: its records and which action each is, while they are in order."""
    mine = [record for record in records if record.scenario == scenario]
    begins = [at for at, record in enumerate(mine) if record.playbook == sequence[0].playbook]
    found = []
    for action, record in zip(sequence, mine[begins[-1] :] if begins else []):
        if (record.playbook, record.check) != (action.playbook, action.check):
            break
        found.append((action, record))
    return found


def judge(
    matrix: Matrix,
    scenario: Scenario,
    machine: str,
    records: list[Record],
    sequence: tuple[Action, ...] = SEQUENCE,
) -> str:
    """`passed`, or what keeps this machine from having passed the scenario."""
    taken = steps(records, scenario.name, sequence)
    for action, record in taken:
        counts = record.hosts.get(machine)
        if counts is None:
            # What works together need not have work for everybody in each step.
            if scenario.together and action.playbook != "verify":
                continue
            return f"{action.name} did nothing on it"
        if counts["failed"]:
            return f"failed in {action.name}"
        if action.name == "idempotence" and counts["changed"]:
            return "failed in idempotence: a second run changes something"
    if len(taken) < len(sequence):
        return f"{sequence[len(taken)].name} did not run"
    missing = missing_features(matrix, scenario, machine, taken)
    return f"did not prove {', '.join(missing)}" if missing else PASSED


def missing_features(
    matrix: Matrix, scenario: Scenario, machine: str, taken: list[tuple[Action, Record]]
) -> list[str]:
    """Features of the scenario of which its verify said nothing for that machine."""
    said = features_of(machine, [record for _action, record in taken])
    return [
        feature.key
        for feature in matrix.features
        if feature.scenario == scenario.name
        and machine not in feature.without
        and feature.key not in said
    ]


def features_of(machine: str, records: list[Record]) -> dict[str, str]:
    """What the playbooks said to have proved on that machine."""
    found: dict[str, str] = {}
    for record in records:
        found.update(record.said.get(machine, {}).get("features", {}))
    return found


def verdicts(
    matrix: Matrix,
    scenarios: list[Scenario],
    places: dict[str, tuple[str, ...]],
    records: list[Record],
    sequence: tuple[Action, ...],
) -> list[Verdict]:
    """One verdict for each of these scenarios on each machine that it has in `places`."""
    found = []
    for scenario in scenarios:
        machines = places[scenario.name]
        if not machines:
            found.append(Verdict(scenario.name, "-", "no hosts"))
        for machine in machines:
            why = judge(matrix, scenario, machine, records, sequence)
            found.append(Verdict(scenario.name, machine, why))
    return found


def write(found: list[Verdict], file: Path) -> None:
    """The verdicts as JSON: scenario, machine, `passed` or why not."""
    file.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", encoding="utf-8")


def junit(found: list[Verdict], file: Path) -> None:
    """The verdicts as test cases."""
    suite = ElementTree.Element("testsuite", name="molecule")
    for verdict in found:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"molecule.{verdict.scenario}", name=verdict.machine
        )
        if not verdict.passed:
            ElementTree.SubElement(case, "failure", message=verdict.why)
    file.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(suite).write(file, encoding="unicode")


def times(
    records: list[Record], scenarios: list[Scenario], sequence: tuple[Action, ...]
) -> list[str]:
    """A table of seconds: scenarios by action."""
    header = ["seconds", *(action.name for action in sequence), "in all"]
    rows = [header]
    for scenario in scenarios:
        taken = steps(records, scenario.name, sequence)
        took = [f"{record.seconds:.0f}" for _action, record in taken]
        took += ["-"] * (len(sequence) - len(taken))
        total = f"{taken[-1][1].ended - taken[0][1].began:.0f}" if taken else "-"
        rows.append([scenario.name, *took, total])
    return aligned(rows)


def passes(matrix: Matrix, found: list[Verdict]) -> list[str]:
    """A table of what passed: scenarios by machines, and below it why what did not pass did not."""
    short = {verdict.why: "passed" if verdict.passed else "FAILED" for verdict in found}
    by_place = {(verdict.scenario, verdict.machine): short[verdict.why] for verdict in found}
    names = list(dict.fromkeys(verdict.scenario for verdict in found))
    rows = [["", *matrix.machines]]
    rows += [
        [name, *(by_place.get((name, each), "-") for each in matrix.machines)] for name in names
    ]
    why = [f"{each.scenario} on {each.machine}: {each.why}" for each in found if not each.passed]
    return [*aligned(rows), *why]


def aligned(rows: list[list[str]]) -> list[str]:
    """Columns as wide as their widest cell; all but the first to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
