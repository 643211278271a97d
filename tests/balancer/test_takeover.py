# SPDX-License-Identifier: GPL-3.0-or-later
"""Two balancers with the same services: they agree without talking, and one takes over from the other."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import clients
import pytest
from scenario import MODES, STATELESS, Mode, Scenario, balancing, scenario
from servers import Server
from topology import Topology, wait_for

Quiet = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def second(network: Topology, backends: tuple[Server, ...], mode: Mode) -> Iterator[Scenario]:
    """The second balancer, with its services in another order."""
    with scenario(mode, network, second=True) as made:
        yield made


@pytest.fixture
def first(network: Topology, second: Scenario, mode: Mode) -> Iterator[Scenario]:
    """The first, to which the address leads; the backends know of it already."""
    with balancing(network, network.balancers[0]) as balancer:
        made = Scenario(mode, network, balancer, second.vip)
        made.serve(made.all())
        network.route(second.vip, balancer.node)
        yield made


def digests(scenario: Scenario) -> dict[str, str]:
    outcome = scenario.balancer.declare(scenario.balancer.declared)
    return {each["name"]: each["digest"] for each in outcome.report["services"]}


def test_the_digests_are_equal(first: Scenario, second: Scenario) -> None:
    """In whatever order services and backends are declared, with weights, and after other ones."""
    shuffle = random.Random(4).shuffle
    wanted = first.all()
    for weight, backend in enumerate(wanted, 1):
        backend["weight"] = weight
    second.serve(second.all()[:2])
    other = list(wanted)
    shuffle(other)
    services = second.services(other)
    shuffle(services)
    first.serve(wanted)
    second.balancer.declare(services)
    assert digests(first) == digests(second)
    assert len(set(digests(first).values())) >= 1


@pytest.mark.parametrize("mode", STATELESS, ids=str, indirect=True)
def test_takeover(first: Scenario, second: Scenario, no_resets: Quiet) -> None:
    """The route moves from one balancer to the other and back: the same backends, no connection lost."""
    network, vip = first.network, first.vip
    with no_resets():
        with clients.load(
            first.client, vip, requests=4, sessions=30, datagrams=8, uploads=3
        ) as report:
            for scenario in (second, first, second):
                time.sleep(0.5)
                node = scenario.balancer.node
                enough = node.interface()["rx_packets"] + 100
                network.route(vip, node)
                assert wait_for(
                    lambda node=node, enough=enough: node.interface()["rx_packets"] > enough, 10
                )
    report.assert_clean()
