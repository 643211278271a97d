# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The alert rules, by promtool: their form, and when each fires."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml
from world import HERE, RULES


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    cases = tmp_path / "rules_test.yml"
    text = (HERE / "rules_test.yml").read_text(encoding="utf-8")
    cases.write_text(text.replace("RULES", str(RULES)), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    cases = yaml.safe_load((HERE / "rules_test.yml").read_text(encoding="utf-8"))["tests"]
    tried = {each["alertname"]: 0 for case in cases for each in case["alert_rule_test"]}
    for case in cases:
        for each in case["alert_rule_test"]:
            tried[each["alertname"]] |= 1 if each["exp_alerts"] else 2
    # Each is seen firing, and but for those that fire as soon as it is so, not firing.
    assert tried == {rule["alert"]: 3 for rule in rules}
