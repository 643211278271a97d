# SPDX-License-Identifier: GPL-3.0-or-later
"""The accelerator is upgraded, downgraded and rolled back under traffic: no connection fails, no byte is lost."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import harness_stacks as stacks
import pytest
from harness_cases import asking
from harness_matrix import on_hosts
from harness_run import run
from harness_stacks import Document, Objects
from harness_state import take
from harness_world import HERE_TRAFFIC, World
from traffic import connections, finish, listen, started_peer

LIVE = 100  # connections that live through everything
HOOK = "hook cgroup 0 cgroup_sock_ops"
SHORT = 12000  # connections that come and go meanwhile


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    binary = tmp_path_factory.mktemp("peer") / "peer"
    sources = sorted(str(path) for path in (HERE_TRAFFIC / "peer").glob("*.c"))
    subprocess.run(["cc", "-O2", "-pthread", *sources, "-o", str(binary)], check=True)
    return binary


def moves(objects: Objects, world: World, name: str) -> list[Document]:
    """Upgrade, downgrade, upgrade, roll back, upgrade, to less, and back to all."""
    first, second, pruned = (
        stacks.accelerator(objects, name, world.groups, *version)
        for version in ((1,), (2,), (2, True))
    )
    withdraw = {"do": "withdraw", "name": name, "release": "v2", "lock_timeout": 30}
    return [second, first, second, withdraw, second, pruned, second, first]


def live_through_it(world: World, objects: Objects, peer: Path) -> dict[str, str]:
    """What the peers say of the traffic; raises AssertionError for whatever went wrong."""
    name = "accelerator-live"
    place = world.places[0]
    made = run(asking(stacks.accelerator(objects, name, world.groups, 1), objects))
    assert made.status == 0, made.output + made.errors
    world.host.sysctl("net.ipv4.tcp_tw_reuse", 1)
    with ExitStack() as stack:
        many = stack.enter_context(connections(LIVE, place, place, port=7800))
        sockets = [end for each in many for end in (each.client, each.server)]
        words = [str(peer), "live", "1", *(str(each.fileno()) for each in sockets)]
        live = stack.enter_context(started_peer(words, sockets))
        assert live.stdout is not None
        assert live.stdout.readline() == "running\n"
        for each in many:
            each.close()  # ours; the peer has its own
        listener = stack.enter_context(listen(place, "127.0.0.1", backlog=4096))
        words = [str(peer), "churn-server", str(listener.fileno()), "16"]
        serving = stack.enter_context(started_peer(words, [listener]))
        arguments = ["churn-client", "127.0.0.1", "7000", str(SHORT), "4"]
        client = subprocess.Popen(
            place.command(str(peer), *arguments), stdout=subprocess.PIPE, text=True
        )
        programs = [program(world)]
        changes = 0
        while client.poll() is None or not changes:
            for request in moves(objects, world, name):
                made = run(asking(request, objects))
                assert made.status == 0, made.output + made.errors
                assert json.loads(made.output)["changed"], made.output
                programs.append(program(world))
                changes += 1
        said, _nothing = client.communicate(timeout=60)
        assert f"asked {SHORT} wrong 0 broken 0" in said
        assert f"served {SHORT} wrong 0 broken 0" in finish(serving)
        spoken = finish(live).split()
    assert len(set(programs)) == len([p for p, q in zip(programs, programs[1:]) if p != q]) + 1
    totals = dict(zip(spoken[::2], spoken[1::2]))
    return {**totals, "changes": str(changes)}


def program(world: World) -> str:
    """What runs at the hook of the first cgroup."""
    facts = take(world).facts
    (found,) = (fact for name, fact in facts.items() if name.startswith(HOOK))
    return found


def test_accelerator(
    peer: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = stacks.build(tmp_path_factory.mktemp("objects"))
    (totals,) = on_hosts(lambda world, _number: live_through_it(world, objects, peer), 1)
    with capsys.disabled():
        print(
            f"\n  accelerator: {totals['changes']} changes under {LIVE} long connections, "
            f"{totals['received']} bytes compared, and {SHORT} short ones: none failed",
            end="",
        )
    assert int(totals["flows"]) == 2 * LIVE
    assert int(totals["sent"]) == int(totals["received"]) > LIVE * 10_000
