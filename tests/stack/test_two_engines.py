# SPDX-License-Identifier: GPL-3.0-or-later
"""Two controllers at once on one host: one run after the other, and both results are right."""

from __future__ import annotations

import json

import harness_stacks as stacks
import pytest
from harness_cases import asking, scenarios
from harness_matrix import on_hosts
from harness_run import Run, run, together
from harness_stacks import Objects
from harness_state import take
from harness_world import World, wipe

ROUNDS = 4


def results(runs: list[Run]) -> list[dict[str, object]]:
    for made in runs:
        assert made.status == 0, made.output + made.errors
    return [json.loads(made.output) for made in runs]


def same_stack(world: World, objects: Objects) -> None:
    """The same release twice: one run makes it, the other finds it made."""
    scenario = scenarios(objects, world)["edge upgrade"]
    (first,), second = scenario.base, scenario.request
    for _round in range(ROUNDS):
        wipe()
        for request in (first, second):
            found = results(together(asking(request, objects), asking(request, objects)))
            assert sorted(bool(each["changed"]) for each in found) == [False, True]


def other_releases(world: World, objects: Objects) -> None:
    """Two releases of a stack: the later run wins, and nothing of the other is left."""
    scenario = scenarios(objects, world)["edge upgrade"]
    (first,), second = scenario.base, scenario.request
    goals = []
    for request in (first, second):
        wipe()
        results([run(asking(first, objects)), run(asking(second, objects))])
        results([run(asking(request, objects))])
        goals.append(_attached(world))
    for _round in range(ROUNDS):
        wipe()
        results(together(asking(first, objects), asking(second, objects)))
        assert _attached(world) in goals


def other_stacks(world: World, objects: Objects) -> None:
    """Two stacks: what each would be alone."""
    made = scenarios(objects, world)
    requests = [made["edge install"].request, made["accelerator install"].request]
    wipe()
    results([run(asking(request, objects)) for request in requests])
    alone = take(world).normal
    for _round in range(ROUNDS):
        wipe()
        results(together(*(asking(request, objects) for request in requests)))
        assert not alone.differences(take(world).normal)


def _attached(world: World) -> dict[str, str]:
    """What is there but for the store, which remembers how it came about."""
    facts = take(world).normal.facts
    return {name: fact for name, fact in facts.items() if not name.startswith("file /var/lib")}


@pytest.mark.parametrize("what", [same_stack, other_releases, other_stacks])
def test_two_at_once(what: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    objects = stacks.build(tmp_path_factory.mktemp("objects"))

    def work(world: World, _number: int) -> bool:
        assert callable(what)
        what(world, objects)
        return True

    assert on_hosts(work, 1) == [True]


def test_a_run_that_waits_says_for_whom(tmp_path_factory: pytest.TempPathFactory) -> None:
    objects = stacks.build(tmp_path_factory.mktemp("objects"))

    def work(world: World, _number: int) -> str:
        from ansible_collections.ebpf.fleet.plugins.module_utils.resource.lock import host_lock

        request = {**scenarios(objects, world)["edge install"].request, "lock_timeout": 1}
        with host_lock(5):
            made = run(asking(request, objects))
        assert made.status == 1, made.output + made.errors
        return made.output

    (said,) = on_hosts(work, 1)
    assert "another run" in said
    assert "lock_timeout" in said
