# SPDX-License-Identifier: GPL-3.0-or-later
"""The power goes at each step of a run: a boot from what the disk then holds brings the old or the new release."""

from __future__ import annotations

from collections import Counter

import harness_stacks
import pytest
from harness_cases import SCENARIOS, Verdict, scenarios
from harness_matrix import FULL, WORKERS, on_hosts
from harness_power import PowerBench
from harness_world import World

SAMPLE = 24  # of each scenario


@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name.startswith("edge")])
def test_power_loss(
    scenario: str, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = harness_stacks.build(tmp_path_factory.mktemp("objects"))

    def attempts(world: World, number: int) -> tuple[int, list[Verdict]]:
        bench = PowerBench(world, objects, scenarios(objects, world)[scenario])
        points = bench.all_points()
        stride = 1 if FULL else max(1, len(points) // SAMPLE)
        stride += stride % 3 == 0  # so that each image has its turn
        chosen = points[::stride][number::WORKERS]
        return len(bench.points), [bench.lose_power(point, image) for point, image in chosen]

    found = on_hosts(attempts)
    verdicts = [verdict for _points, made in found for verdict in made]
    images = Counter(verdict.outcome for verdict in verdicts)
    with capsys.disabled():
        print(
            f"\n  power loss: {scenario}: {found[0][0]} steps of the store, {dict(images)} images tried",
            end="",
        )
    problems = [
        f"{each.fault.what} after {each.step}: {each.problem}" for each in verdicts if each.problem
    ]
    assert not problems, "\n".join(problems[:20])
    assert verdicts
