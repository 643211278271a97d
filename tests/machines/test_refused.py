# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would prove nothing is refused, though molecule itself would call it successful."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from checkout import Checkout


def test_a_group_that_nobody_is_in(copy: Checkout) -> None:
    file = copy.root / "molecule/matrix.yml"
    said = yaml.safe_load(file.read_text(encoding="utf-8"))
    said["scenarios"]["sockmap"] |= {
        "groups": {"hosts": []},
        "without": dict.fromkeys(said["machines"], "nobody is left"),
        "sample": [],
    }
    file.write_text(yaml.safe_dump(said), encoding="utf-8")
    done = copy.run("sockmap")
    assert done.returncode == 1
    assert "sockmap: no hosts: its group hosts is empty" in done.stdout
    assert "nothing was booted" in done.stdout


def test_a_scenario_none_of_whose_machines_is_booted(copy: Checkout) -> None:
    done = copy.run("bcc", machines="newest")
    assert done.returncode == 1
    assert "bcc: no hosts among newest" in done.stderr
    assert "molecule test" not in done.stdout


@pytest.mark.parametrize("playbook", ["converge", "verify"])
def test_a_playbook_of_molecule_on_an_empty_group(copy: Checkout, playbook: str) -> None:
    """Ansible skips a play for nobody, and molecule is content: the playbook has to notice."""
    inventory = copy.root / "inventory.yml"
    groups = {"all": {"children": {"scenario_modules": {}, "modules_hosts": {}}}}
    inventory.write_text(yaml.safe_dump(groups), encoding="utf-8")
    done = subprocess.run(
        [copy.root / ".venv/bin/ansible-playbook", "-i", inventory, f"{playbook}.yml"],
        cwd=copy.root / "molecule/modules",
        env=copy.environment(MOLECULE_SCENARIO_NAME="modules"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no hosts: the group scenario_modules" in done.stdout


@pytest.mark.parametrize("playbook", ["verify", "side_effect"])
def test_a_scenario_whose_playbook_was_removed(copy: Checkout, playbook: str) -> None:
    (copy.root / f"molecule/modules/{playbook}.yml").unlink()
    done = copy.run("modules")
    assert done.returncode == 1
    assert f"molecule/modules/{playbook}.yml is missing" in done.stdout
    assert "nothing was booted" in done.stdout


def test_a_verify_that_asks_nothing(copy: Checkout) -> None:
    file = copy.root / "molecule/modules/verify.yml"
    first = yaml.safe_load(file.read_text(encoding="utf-8"))[0]
    file.write_text(yaml.safe_dump([first]), encoding="utf-8")
    done = copy.run("modules")
    assert done.returncode == 1
    assert "molecule/modules/verify.yml: does nothing on any host" in done.stdout
