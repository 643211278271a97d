# SPDX-License-Identifier: GPL-3.0-or-later
"""Each step of a run fails once: the old state stays, bit for bit, or the fault made no difference.

A sample of steps and errnos, evenly spread; all of them in `make test-full`. Which faults may make no difference, and
why, is listed in harness_cases; any other is a defect.
"""

from __future__ import annotations

import harness_stacks
import pytest
from harness_cases import SCENARIOS
from harness_matrix import failures, tried

SAMPLE = 40  # of each scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fail(
    scenario: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = harness_stacks.build(tmp_path_factory.mktemp("objects"))
    report = tried(scenario, "fail", failures(SAMPLE), objects)
    with capsys.disabled():
        print(f"\n  failed: {report}", end="")
    assert not report.problems, "\n".join(report.problems[:20])
    assert report.verdicts
