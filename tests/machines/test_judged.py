# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run is judged by: which playbooks ran on which machine, and what they said."""

from __future__ import annotations

from dataclasses import replace

import pytest
from results import PASSED, SAMPLE, SEQUENCE, Record, judge
from scenarios import Feature, Matrix, Scenario

SCENARIO = Scenario("one", "", {"hosts": ("a", "b")}, {}, (), together=False)
MATRIX = Matrix({"a": {}, "b": {}}, {}, (SCENARIO,), (Feature("links", "", "one", {}),))
WELL = {"ran": 3, "changed": 0, "failed": 0}


def records() -> list[Record]:
    """A run in which all is well."""
    return [
        Record(
            *("one", action.playbook, action.check, at, at + 1),
            hosts={"localhost": WELL, "a": WELL, "b": WELL},
            said={name: {"features": {"links": "yes"}} for name in ("a", "b")}
            if action.playbook == "verify"
            else {},
        )
        for at, action in enumerate(SEQUENCE)
    ]


def at(name: str) -> int:
    return [action.name for action in SEQUENCE].index(name)


def test_a_run_that_is_well_passes() -> None:
    assert judge(MATRIX, SCENARIO, "a", records()) == PASSED


def test_the_sample_has_a_sequence_of_its_own() -> None:
    short = [record for action, record in zip(SEQUENCE, records()) if action in SAMPLE]
    assert judge(MATRIX, SCENARIO, "a", short, SAMPLE) == PASSED
    assert judge(MATRIX, SCENARIO, "a", short[:-1], SAMPLE) == "cleanup did not run"
    assert judge(MATRIX, SCENARIO, "a", short) == "check did not run"


def test_an_earlier_run_does_not_count() -> None:
    assert judge(MATRIX, SCENARIO, "a", [*records(), records()[0]]) == "check did not run"


@pytest.mark.parametrize("step", range(len(SEQUENCE)))
def test_every_step_has_to_run(step: int) -> None:
    ran = [record for number, record in enumerate(records()) if number != step]
    assert judge(MATRIX, SCENARIO, "a", ran).endswith("did not run")


@pytest.mark.parametrize("step", range(len(SEQUENCE)))
def test_every_step_has_to_do_something_on_every_machine(step: int) -> None:
    ran = records()
    ran[step] = replace(ran[step], hosts={"localhost": WELL, "b": WELL})
    assert judge(MATRIX, SCENARIO, "a", ran) == f"{SEQUENCE[step].name} did nothing on it"
    assert judge(MATRIX, SCENARIO, "b", ran) == PASSED


@pytest.mark.parametrize("step", range(len(SEQUENCE)))
def test_a_step_that_failed_on_the_machine(step: int) -> None:
    ran = records()
    ran[step] = replace(ran[step], hosts={"a": {**WELL, "failed": 1}, "b": WELL})
    assert judge(MATRIX, SCENARIO, "a", ran) == f"failed in {SEQUENCE[step].name}"


def test_a_second_run_that_changes_something() -> None:
    ran, step = records(), at("idempotence")
    ran[step] = replace(ran[step], hosts={"a": {**WELL, "changed": 1}, "b": WELL})
    assert "idempotence" in judge(MATRIX, SCENARIO, "a", ran)
    assert judge(MATRIX, SCENARIO, "b", ran) == PASSED


def test_a_feature_that_verify_says_nothing_of() -> None:
    silent = [replace(record, said={}) for record in records()]
    assert judge(MATRIX, SCENARIO, "a", silent) == "did not prove links"


def test_machines_that_work_together_need_not_all_work_in_each_step() -> None:
    together = replace(SCENARIO, together=True)
    for name, verdict in (("converge", PASSED), ("verify", "verify did nothing on it")):
        ran = records()
        ran[at(name)] = replace(ran[at(name)], hosts={"b": WELL})
        assert judge(MATRIX, together, "a", ran) == verdict
