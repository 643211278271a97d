# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role documents is what it does: its defaults and its argument specification are equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

ROLES = sorted(
    path for path in (Path(__file__).parents[2] / "roles").iterdir() if (path / "tasks").is_dir()
)
every_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, empty when there is no file."""
    if not path.exists():
        return {}
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return found


def options(role: Path) -> dict[str, dict[str, Any]]:
    """The options of the role's main entry point."""
    found: dict[str, dict[str, Any]] = read(role / "meta/argument_specs.yml")["argument_specs"][
        "main"
    ].get("options", {})
    return found


def test_there_are_roles() -> None:
    assert ROLES


@every_role
def test_every_default_is_documented_and_equal(role: Path) -> None:
    defaults = read(role / "defaults/main.yml")
    documented = {
        name: option["default"] for name, option in options(role).items() if "default" in option
    }
    assert documented == defaults


@every_role
def test_an_option_without_a_default_is_required(role: Path) -> None:
    for name, option in options(role).items():
        assert ("default" in option) != option.get("required", False), name


@every_role
def test_every_option_says_its_type_and_what_it_does(role: Path) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role.name}_"), name
        assert option["type"], name
        assert option["description"], name


@every_role
def test_the_readme_names_every_option(role: Path) -> None:
    text = (role / "README.md").read_text(encoding="utf-8")
    assert [name for name in options(role) if f"`{name}`" not in text] == []
