# SPDX-License-Identifier: GPL-3.0-or-later
"""A run is killed after each of its steps: traffic flows through one version, the next run completes it.

A sample of the steps, evenly spread; all of them in `make test-full`.
"""

from __future__ import annotations

import harness_stacks
import pytest
from harness_cases import SCENARIOS
from harness_matrix import kills, tried

SAMPLE = 14  # of each scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kill(
    scenario: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = harness_stacks.build(tmp_path_factory.mktemp("objects"))
    report = tried(scenario, "kill", kills(SAMPLE), objects)
    with capsys.disabled():
        print(f"\n  killed: {report}", end="")
    assert not report.problems, "\n".join(report.problems[:20])
    assert report.verdicts
