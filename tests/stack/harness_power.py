# SPDX-License-Identifier: GPL-3.0-or-later
"""Power loss: a boot from each image that the disk may hold, at each step of a run that concerns the store."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import harness_world as worlds
from harness_cases import Bench, Scenario, Verdict, asking
from harness_disk import IMAGES, Disk, same_tree
from harness_run import Fault, run, together
from harness_stacks import Objects
from harness_steps import Step
from harness_world import STORE, World

from ansible_collections.ebpf.fleet.plugins.module_utils.stack import main as engine


class PowerBench(Bench):
    """A scenario, and the images of the disk between its steps."""

    def __init__(self, world: World, objects: Objects, scenario: Scenario) -> None:
        super().__init__(world, objects, scenario)
        self.prepare()
        self.scratch = tempfile.TemporaryDirectory()
        self.before, model = Path(self.scratch.name, "before"), Path(self.scratch.name, "model")
        if STORE.exists():
            shutil.copytree(STORE, self.before, symlinks=True)
        self.steps = run(asking(scenario.request, objects), reads=False).steps
        disk = self._disk()
        self.points = [step for step in self.steps if not step.read and disk.do(step)]
        disk.write_image("kept", model)
        assert same_tree(model, STORE), "the model of the disk is wrong"
        disk.write_image("lost", model)
        assert same_tree(model, STORE), "the end of the run is not on the disk"

    def _disk(self) -> Disk:
        disk = Disk.of(self.before)
        disk.base = STORE
        return disk

    def lose_power(self, point: Step | None, image: str) -> Verdict:
        """Boot from the image after this step (None: before all); then the run is repeated."""
        start = time.monotonic()
        worlds.wipe()
        disk = self._disk()
        for step in self.points[: self.points.index(point) + 1] if point else ():
            disk.do(step)
        disk.write_image(image, STORE)
        (booted,) = together(_booting)
        problem = "" if booted.status == 0 else f"replay: {booted.output}{booted.errors}"
        problem = problem or self._traffic() or self._store() or self._completes()
        fault = Fault(point.address if point else (0, 0), image)
        return Verdict(fault, str(point or "0 the start"), image, problem, time.monotonic() - start)

    def all_points(self) -> list[tuple[Step | None, str]]:
        """Every step with every image."""
        return [(point, image) for point in (None, *self.points) for image in IMAGES]


def _booting() -> int:
    return int(engine.main(["replay", "--phase", "early"]))
