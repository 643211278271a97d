# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios on virtual machines are complete, and the README says what they have proved."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "molecule"))

import results  # noqa: E402
import scenarios  # noqa: E402
import support  # noqa: E402

MATRIX = scenarios.read()


def test_every_scenario_has_machines_and_playbooks() -> None:
    assert scenarios.faults(MATRIX, []) == []


def test_the_steps_that_are_judged_are_those_that_molecule_takes() -> None:
    config = yaml.safe_load((ROOT / "molecule/config.yml").read_text(encoding="utf-8"))
    taken = [
        each for each in config["scenario"]["test_sequence"] if each not in ("create", "destroy")
    ]
    assert [action.name.removesuffix(" again") for action in results.SEQUENCE] == taken


def test_what_was_proved_is_what_the_matrix_asks_for() -> None:
    proved = support.read()
    assert set(proved.machines) <= set(MATRIX.machines)
    wanted = {
        feature.key: set(MATRIX.scenario(feature.scenario).machines) - set(feature.without)
        for feature in MATRIX.features
    }
    for key, cells in proved.features.items():
        assert set(cells) <= wanted[key], key


def test_the_readme_has_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    made = support.table(MATRIX, support.read())
    assert support.in_readme(text, made) == text, "run .venv/bin/python molecule/support.py"
