# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded flood of SYNs from addresses that nobody has."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import clients
import packets
import pytest
from scenario import DSR6, NAT6, ONE_EACH, Mode, Scenario, scenario
from servers import Server
from topology import Topology, wait_for

Quiet = Callable[..., AbstractContextManager[None]]
# What only a SYN vouches for has tables of its own. They are made small, so that a small flood is a flood.
ROOM = 1024
TABLES = dict.fromkeys(("flows_opening", "nat_opening", "nat_replies_opening"), ROOM)
FLOOD = 60_000  # SYNs, all different
SECONDS = 3.0  # and no longer than this
LEAST = 8 * ROOM


@pytest.fixture(autouse=True)
def half_open_connections_end(network: Topology) -> Iterator[None]:
    """Backends give up at once on what the flood has half opened, so that the next test begins without it."""

    def over() -> bool:
        return not any(node.run("ss", "-Htn", "state", "syn-recv") for node in network.backends)

    for node in network.backends:
        node.sysctl({"net.ipv4.tcp_synack_retries": 0})
    yield
    wait_for(over)
    for node in network.backends:
        node.sysctl({"net.ipv4.tcp_synack_retries": 5})


def moving(at_work: Scenario, backends: list[dict[str, Any]]) -> None:
    """Declare everything from all backends, but for the sessions' service: that is what the flood is for."""
    at_work.balancer.declare(
        [
            service | {"backends": backends} if service["name"].startswith("lines") else service
            for service in at_work.services(at_work.all())
        ]
    )


@pytest.mark.parametrize("mode", [*ONE_EACH, DSR6, NAT6], ids=str)
def test_clients_do_not_notice(
    mode: Mode,
    network: Topology,
    backends: tuple[Server, ...],
    no_resets: Quiet,
) -> None:
    """Sessions from before and after a change of the ring, and connections that begin during the flood.

    Those begin in slots that have not moved, or by translations that are evicted at once, over and over.
    """
    attacker = network.clients[1]
    with scenario(mode, network, max_entries=TABLES) as at_work:
        # made beforehand, so that they come as fast as they can be sent
        endless = packets.syns(network, attacker, at_work.vip, 7000)
        flood = list(itertools.islice(endless, FLOOD))
        *first, last = at_work.all()
        moving(at_work, first)
        # the balancer's host does reset what the flood has pushed out of the tables: no one's connection
        with (
            no_resets(network.backends),
            clients.load(at_work.client, at_work.vip, sessions=40) as before,
        ):
            moving(at_work, [*first, last])
            kinds = {"requests": 10, "sessions": 40, "uploads": 1}
            with clients.load(at_work.client, at_work.vip, **kinds) as after:
                seen = at_work.balancer.node.interface()["rx_packets"]
                sent = packets.send(attacker, flood, SECONDS)
                time.sleep(0.5)
                seen = at_work.balancer.node.interface()["rx_packets"] - seen
        before.assert_clean()
        after.assert_clean()
        assert min(sent, seen) >= LEAST, "the flood did not reach the balancer"
        assert after.backends("sessions")["backend4"] > 0, "no session is one that the tables know"


def test_syns_are_right(network: Topology, backends: tuple[Server, ...]) -> None:
    """The control: the flood's packets are ones that a server answers."""
    backend, client = network.backends[0], network.clients[1]
    for family in (4, 6):
        counter = "Tcp.InCsumErrors"
        before, wrong = backend.counter("Tcp.OutSegs"), backend.counter(counter)
        frames = itertools.islice(packets.syns(network, client, backend.address(family), 7000), 50)
        packets.send(client, frames)
        enough = before + 50
        assert wait_for(lambda least=enough: backend.counter("Tcp.OutSegs") >= least, 10)
        assert backend.counter(counter) == wrong
