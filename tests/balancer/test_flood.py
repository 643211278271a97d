# SPDX-License-Identifier: GPL-3.0-or-later
"""A bounded flood of SYNs from addresses that nobody has."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import clients
import packets
import pytest
from scenario import DSR6, NAT6, ONE_EACH, Mode, scenario
from servers import Server
from topology import Topology

Quiet = Callable[[], AbstractContextManager[None]]
FLOOD = 300_000  # SYNs: more than any of the tables holds
SECONDS = 5.0  # and no longer than this
LEAST = 50_000


@pytest.mark.parametrize("mode", [*ONE_EACH, DSR6, NAT6], ids=str)
def test_established_connections_survive(
    mode: Mode, network: Topology, backends: tuple[Server, ...], no_resets: Quiet
) -> None:
    """Sessions from before and after a change of the ring, which the tables know, and requests during the flood."""
    with scenario(mode, network) as at_work:
        *first, last = at_work.all()
        at_work.serve(first)
        with no_resets(), clients.load(at_work.client, at_work.vip, sessions=40) as before:
            at_work.serve([*first, last])
            kinds = {"requests": 2, "sessions": 40, "uploads": 1}
            with clients.load(at_work.client, at_work.vip, **kinds) as after:
                seen = at_work.balancer.node.interface()["rx_packets"]
                flood = packets.syns(network, network.clients[1], at_work.vip, 7000)
                sent = packets.send(network.clients[1], itertools.islice(flood, FLOOD), SECONDS)
                time.sleep(0.5)
                seen = at_work.balancer.node.interface()["rx_packets"] - seen
        before.assert_clean()
        after.assert_clean()
        assert sent >= LEAST
        assert seen >= sent * 0.95, "the flood did not reach the balancer"
        assert after.backends("sessions")["backend4"] > 0, "no session is one that the tables know"


def test_syns_are_right(network: Topology, backends: tuple[Server, ...]) -> None:
    """The control: the flood's packets are ones that a server answers."""
    backend, client = network.backends[0], network.clients[1]
    for family in (4, 6):
        counter = "Tcp.InCsumErrors"
        before, wrong = backend.counter("Tcp.OutSegs"), backend.counter(counter)
        frames = itertools.islice(packets.syns(network, client, backend.address(family), 7000), 50)
        packets.send(client, frames)
        time.sleep(0.3)
        assert backend.counter(counter) == wrong
        assert backend.counter("Tcp.OutSegs") >= before + 50
