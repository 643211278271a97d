# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proof is worth: engines with a known defect do not pass it."""

from __future__ import annotations

import os
from collections.abc import Callable

import harness_stacks
import pytest
from harness_cases import Bench, scenarios
from harness_matrix import on_hosts
from harness_power import PowerBench
from harness_run import KILL, Fault
from harness_world import World

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import files, journal, pins
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Fd

Defect = Callable[[pytest.MonkeyPatch], None]


def never_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fsync", lambda _descriptor: None)


def written_in_place(patch: pytest.MonkeyPatch) -> None:
    """A link is removed and made anew, where it should be renamed over."""

    def symlink(target: str, path: str) -> None:
        files.remove(path)
        os.symlink(target, path)

    patch.setattr(files, "symlink_atomic", symlink)


def never_undone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(journal, "undo", lambda _what, _action: None)


def staged_names_stay(patch: pytest.MonkeyPatch) -> None:
    """Each pin that is replaced leaves one with another name behind."""
    replace = pins.replace

    def forgetful(fd: Fd, path: str) -> None:
        replace(fd, path)
        pins.pin(fd, f"/sys/fs/bpf/left_{os.getpid()}_{fd.number}")

    patch.setattr(pins, "replace", forgetful)


def problems(
    defect: Defect, tmp_path_factory: pytest.TempPathFactory, kind: str, about: str = ""
) -> list[str]:
    """What two cases find wrong with an engine that has the defect, at steps that are about this."""
    objects = harness_stacks.build(tmp_path_factory.mktemp("objects"))

    def work(world: World, _number: int) -> list[str]:
        scenario = scenarios(objects, world)["edge upgrade"]
        if kind == "power":
            with pytest.MonkeyPatch.context() as patch:
                defect(patch)
                PowerBench(world, objects, scenario)
            return []
        bench = Bench(world, objects, scenario)
        with pytest.MonkeyPatch.context() as patch:
            defect(patch)
            chosen = [step for step in bench.steps if not step.read and about in str(step)][-2:]
            if kind == "kill":
                verdicts = [bench.kill(Fault(step.address, KILL)) for step in chosen]
            else:
                verdicts = [bench.fail(Fault(step.address, "ENOSPC")) for step in chosen]
        return [verdict.problem for verdict in verdicts if verdict.problem]

    (found,) = on_hosts(work, 1)
    return found


def test_a_store_that_is_never_synced(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(AssertionError, match="not on the disk"):
        problems(never_synced, tmp_path_factory, "power")


def test_a_link_that_is_missing_for_a_moment(tmp_path_factory: pytest.TempPathFactory) -> None:
    assert any(
        "current" in each
        for each in problems(written_in_place, tmp_path_factory, "kill", "/current")
    )


def test_pins_that_are_left_over(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = problems(staged_names_stay, tmp_path_factory, "kill", "LINK_UPDATE")
    assert any("the next run leaves" in each for each in found)


def test_a_run_that_does_not_undo(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = problems(never_undone, tmp_path_factory, "fail", "LINK_UPDATE")
    assert any("not the old state" in each for each in found)
