# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not a service's goes to the host, untouched, whatever the balancer is doing."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import clients
import pytest
import servers
from scenario import ONE_EACH, Scenario, scenario
from servers import Server
from topology import Node, Topology

Quiet = Callable[[], AbstractContextManager[None]]
KINDS = {"requests": 2, "sessions": 10, "datagrams": 2, "uploads": 1}


@pytest.fixture(scope="module")
def own_servers(network: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """The first balancer runs servers itself, as every host runs sshd."""
    node = network.balancers[0]
    with servers.service(node), servers.nginx(node, tmp_path_factory.mktemp("own")):
        yield node


@pytest.fixture(params=ONE_EACH, ids=str)
def at_work(
    request: pytest.FixtureRequest,
    network: Topology,
    backends: tuple[Server, ...],
    own_servers: Node,
) -> Iterator[Scenario]:
    with scenario(request.param, network) as made:
        # the address of its servers is also the one to which backends behind nat answer
        made.balancer.sources = {"ipv4": own_servers.ipv4, "ipv6": own_servers.ipv6}
        made.serve(made.all())
        yield made


@pytest.mark.parametrize("family", [4, 6])
def test_the_balancers_own_servers(at_work: Scenario, own_servers: Node, family: int) -> None:
    """Connections to the balancer's own address, on the very ports that it balances, throughout its life."""
    balancer, address = at_work.balancer, own_servers.address(family)
    with clients.load(at_work.client, address, **KINDS) as report:
        at_work.serve(at_work.all()[1:])
        balancer.load()
        balancer.attach()
        balancer.declare([])
        balancer.detach()
        balancer.attach()
        at_work.serve(at_work.all())
        time.sleep(0.3)
    report.assert_clean()
    for kind in KINDS:
        assert set(report.backends(kind)) == {own_servers.name}


@pytest.mark.parametrize("family", [4, 6])
def test_the_balancers_own_connections(at_work: Scenario, family: int) -> None:
    """The balancer is a client too: of the backends that it balances, and of anything else."""
    node = at_work.balancer.node
    before = at_work.balancer.reasons()
    for backend in at_work.network.backends:
        with clients.load(
            node, backend.address(family), requests=1, sessions=2, datagrams=1
        ) as seen:
            pass
        seen.assert_clean()
        assert set(seen.backends("sessions")) == {backend.name}
    assert at_work.balancer.reasons()["PASS_FOREIGN"] > before["PASS_FOREIGN"]


@pytest.mark.parametrize("family", [4, 6])
def test_pings_of_the_balancer(at_work: Scenario, family: int) -> None:
    """Short, long and in fragments."""
    address = at_work.balancer.node.address(family)
    for length in (0, 56, 1400, 4000):
        assert clients.echoes(at_work.client, address, length, count=2) == 2, length


@pytest.mark.parametrize("family", [4, 6])
def test_fragments_for_the_balancer(at_work: Scenario, own_servers: Node, family: int) -> None:
    """A datagram of 6,000 bytes to its own address and the answer."""
    question = os.urandom(6000)
    answer = clients.ask(at_work.client, own_servers.address(family), question)
    assert answer == own_servers.name.encode() + b" " + question


def test_ssh_to_a_virtual_address(at_work: Scenario, own_servers: Node) -> None:
    """Ports that are no service's belong to the host when the address is its own: accepted, or refused at once."""
    with at_work.network.hosted(at_work.vip, [own_servers]):
        with own_servers.entered():
            listener = socket.create_server((at_work.vip, 22))
        with listener, clients.tcp(at_work.client, at_work.vip, 22) as made:
            accepted, _peer = listener.accept()
            with accepted:
                accepted.sendall(b"SSH-2.0\r\n")
                assert made.recv(100) == b"SSH-2.0\r\n"
        with pytest.raises(ConnectionRefusedError):
            clients.tcp(at_work.client, at_work.vip, 81)
        assert clients.curl(at_work.client, at_work.vip).strip() in at_work.names


def test_a_resolved_neighbour_is_not_disturbed(at_work: Scenario) -> None:
    """ARP and neighbour discovery pass: the router finds the balancer anew."""
    node, router = at_work.balancer.node, at_work.network.router
    router.run("ip", "neigh", "flush", "dev", "br0")
    for family in (4, 6):
        assert clients.echoes(at_work.client, node.address(family), count=2) >= 1
        assert clients.echoes(at_work.client, node.address(family)) == 1


def test_what_is_not_for_us_in_a_quiet_balancer(
    network: Topology, backends: tuple[Server, ...], own_servers: Node, tmp_path: Path
) -> None:
    """The control: the same servers without any balancer."""
    for family in (4, 6):
        with clients.load(network.clients[0], own_servers.address(family), **KINDS) as report:
            time.sleep(0.3)
        report.assert_clean()
