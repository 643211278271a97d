# SPDX-License-Identifier: GPL-3.0-or-later
"""Paths that take less than the ends believe: who has to know is told, through the balancer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import clients
import pytest
from scenario import IPIP4, IPIP4IN6, IPIP6, Mode, Scenario, scenario, vip_of
from servers import Server
from topology import Node, Topology

BODY = 1 << 20
NARROW = 1300
OUTER = {"ipip4": 20, "ipip6": 40, "ipip4in6": 40}  # bytes that the outer header adds


def path_mtu(node: Node, destination: str, source: str) -> int | None:
    """What a box has learnt of the path to an address; None when nothing."""
    shown = node.run("ip", "-j", "route", "get", destination, "from", source, check=False)
    for route in json.loads(shown or "[]"):
        for metric in route.get("metrics", []):
            if "mtu" in metric:
                return int(metric["mtu"])
    return None


@contextmanager
def narrow(network: Topology, client: Node) -> Iterator[None]:
    """The router can send the client less than the client believes."""
    network.link_mtu(client, NARROW)
    try:
        yield
    finally:
        network.link_mtu(client, 1500)


def served(backends: tuple[Server, ...], body: bytes) -> None:
    for server in backends:
        (server.www / "large").write_bytes(body)


def test_too_big_reaches_the_backend_that_sent(
    at_work: Scenario, backends: tuple[Server, ...], tmp_path: Path
) -> None:
    """The router answers a backend's segment to the virtual address: it reaches that backend, and no other learns of it."""
    body, client = os.urandom(BODY), at_work.client
    served(backends, body)
    family = at_work.mode.family
    translates = at_work.mode.translates
    before = at_work.balancer.reasons()["ICMP_FORWARDED"]
    with narrow(at_work.network, client):
        head = clients.curl(client, at_work.vip, "/large", "-o", str(tmp_path / "large"), "-D", "-")
    assert " 200 " in head
    assert (tmp_path / "large").read_bytes() == body
    assert at_work.balancer.reasons()["ICMP_FORWARDED"] > before
    learnt = {}
    for node in at_work.network.backends:
        there = at_work.balancer.sources[f"ipv{family}"] if translates else client.address(family)
        source = node.address(family) if translates else at_work.vip
        learnt[node.name] = path_mtu(node, there, source)
    assert sorted(learnt.values(), key=str) == [NARROW, None, None, None], learnt


@pytest.mark.parametrize("family", [4, 6])
def test_the_control_for_too_big(
    network: Topology, backends: tuple[Server, ...], family: int, tmp_path: Path
) -> None:
    """Plain routing to one backend over the same narrow link: the way this works without a balancer."""
    body, client, vip, backend = (
        os.urandom(BODY),
        network.clients[0],
        vip_of(network.number(), family),
        network.backends[0],
    )
    served(backends, body)
    with network.hosted(vip, [backend]), narrow(network, client):
        network.route(vip, backend)
        clients.curl(client, vip, "/large", "-o", str(tmp_path / "large"))
        network.unroute(vip)
        assert path_mtu(backend, client.address(family), vip) == NARROW
    assert (tmp_path / "large").read_bytes() == body


@pytest.mark.parametrize("mode", [IPIP4, IPIP6, IPIP4IN6], ids=str)
def test_no_room_for_the_outer_header(
    mode: Mode, network: Topology, backends: tuple[Server, ...], tmp_path: Path
) -> None:
    """A client's full-sized segment does not fit when it is encapsulated: the balancer says so, the upload goes on."""
    body = os.urandom(BODY)
    (tmp_path / "body").write_bytes(body)
    with scenario(mode, network) as at_work:
        before = at_work.balancer.reasons()["TOO_BIG_SENT"]
        client = at_work.client
        clients.curl(client, at_work.vip, "/put/large", "-T", str(tmp_path / "body"))
        assert at_work.balancer.reasons()["TOO_BIG_SENT"] > before
        learnt = path_mtu(client, at_work.vip, client.address(mode.family))
        assert learnt == 1500 - OUTER[str(mode)]
    stored = [
        server.www / "put/large" for server in backends if (server.www / "put/large").exists()
    ]
    assert [path.read_bytes() == body for path in stored] == [True]
    stored[0].unlink()
