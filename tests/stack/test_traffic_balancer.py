# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancer is upgraded, downgraded and rolled back under traffic: no request fails, nothing is reset."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import harness_stacks as stacks
import pytest
from harness_cases import asking
from harness_matrix import in_processes
from harness_run import run
from harness_stacks import Document, Objects
from harness_world import own_files

sys.path.insert(0, str(stacks.ROOT / "tests/balancer"))

import clients
import topology
from balancer import all_services, service
from scenario import DSR4, NAT4, Mode, members, sources_of, vip_of
from servers import serving
from topology import Node, Topology

CLIENTS = {"requests": 6, "sessions": 30, "datagrams": 10, "uploads": 3}
COUNTERS = ("Tcp.OutRsts", "Tcp.InCsumErrors", "Udp.InCsumErrors")


@contextmanager
def no_resets(nodes: tuple[Node, ...]) -> Iterator[None]:
    """None of these boxes resets a connection or receives a wrong checksum meanwhile."""

    def read() -> dict[str, int]:
        return {f"{node.name} {name}": node.counter(name) for node in nodes for name in COUNTERS}

    before = read()
    yield
    grown = {name: count for name, count in read().items() if count > before[name]}
    assert not grown


def program(node: Node) -> int:
    """The id of the XDP program that the interface runs now."""
    shown = json.loads(node.run("ip", "-d", "-j", "link", "show", "dev", "eth0"))[0]
    return int(shown["xdp"]["prog"]["id"])


def moves(
    objects: Objects, network: Topology, mode: Mode, vip: str, sources: dict[str, str]
) -> tuple[Document, list[Document]]:
    """The first release, and where it goes from there: another program, and another service."""
    node = network.balancers[0]
    offered = all_services(vip, mode.forwarding, members(mode, network.backends))
    more = service("more", vip, mode.forwarding, members(mode, network.backends), 8081)
    name = f"lb-{mode}"
    first, second = (
        stacks.balancer(objects, name, node.netns, services, sources, version)
        for version, services in ((1, offered), (2, [*offered, more]))
    )
    withdraw = {"do": "withdraw", "name": name, "release": "v2", "lock_timeout": 30}
    return first, [second, first, second, withdraw, second, first]


def live_through_it(
    objects: Objects, network: Topology, mode: Mode
) -> tuple[int, dict[str, dict[str, Any]]]:
    """How many changes there were, and what the clients say of the time."""
    node, vip = network.balancers[0], vip_of(network.number(), 4)
    with ExitStack() as stack:
        if not mode.translates:
            stack.enter_context(network.hosted(vip, network.backends))
        sources = stack.enter_context(sources_of(network.number(), node))
        first, following = moves(objects, network, mode, vip, sources)
        done(first, objects)
        network.route(vip, node)
        programs = [program(node)]
        with (
            no_resets((*network.balancers, *network.backends)),
            clients.load(network.clients[0], vip, **CLIENTS) as report,
        ):
            for request in following:
                done(request, objects)
                programs.append(program(node))
                time.sleep(0.3)
        report.assert_clean()
        assert all(old != new for old, new in zip(programs, programs[1:])), programs
    return len(following), report.tallies


def done(request: Document, objects: Objects) -> None:
    made = run(asking(request, objects))
    assert made.status == 0, made.output + made.errors
    assert json.loads(made.output)["changed"], made.output


@pytest.mark.parametrize("mode", [DSR4, NAT4], ids=str)
def test_balancer(
    mode: Mode,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    objects = stacks.build(tmp_path_factory.mktemp("objects"))
    backends: Path = tmp_path_factory.mktemp("backends")

    def work(_number: int) -> tuple[int, dict[str, dict[str, Any]]]:
        with topology.network() as network, serving(network, backends):
            own_files()  # after the servers, which have files of their own there
            return live_through_it(objects, network, mode)

    ((changes, tallies),) = in_processes(work)
    counts = ", ".join(f"{tally['done']} {kind}" for kind, tally in tallies.items())
    with capsys.disabled():
        print(f"\n  balancer {mode}: {changes} changes under load, {counts}: none failed", end="")
