# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets a second over native veth: generator, balancer and sink on one CPU, frames of 96 bytes.

The generator is a test run with live frames in the router's namespace; the sink is an XDP program
at the router's end of the same veth pair. What is measured sends the frames back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import topology
import xdp_micro
import xdp_web
from balancer import Balancer
from topology import Node, Topology

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import xdp

COUNT = 1 << 18
CPU = 0

Measure = Callable[[], float]


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """What this thread does, and the soft interrupts it causes, stay on one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def attached(bench: xdp_micro.Harness, program: str, node: Node, interface: str) -> Iterator[None]:
    """One of the floor's programs on an interface, natively."""
    with topology.entered(node.netns):
        link = xdp.create_link(
            bench.programs[program], xdp_micro.ifindex(node, interface), "native"
        )
    with link:
        yield


def rate(bench: xdp_micro.Harness, network: Topology, packet: bytes, comes_back: bool) -> float:
    """Millions of packets a second: those that came back, or of one that drops them all, those sent."""
    before = bench.arrivals()
    with topology.entered(network.router.netns), on_one_cpu():
        begin = time.perf_counter()
        bench.transmit(packet, COUNT)
        elapsed = time.perf_counter() - begin
    back = bench.arrivals() - before
    if comes_back and back < COUNT / 2:
        raise RuntimeError(f"only {back} of {COUNT} frames came back")
    return (back if comes_back else COUNT) / elapsed / 1e6


@contextmanager
def wires(bench: xdp_micro.Harness, network: Topology) -> Iterator[None]:
    """The sink at the router's ends of both balancers' veth pairs."""
    with ExitStack() as stack:
        for node in network.balancers:
            topology.xdp(network.router, node.name, None)
            stack.enter_context(attached(bench, "sink", network.router, node.name))
        yield


def through(
    bench: xdp_micro.Harness,
    network: Topology,
    at: Balancer,
    vip: str,
    who: Sequence[xdp_micro.Flow],
    flags: str = xdp_micro.ACK,
) -> Measure:
    """Through the balancer under test, to one of its services."""

    def measure() -> float:
        packet = xdp_micro.tcp(at, xdp_micro.NOBODY[4], vip, 0, flags)
        bench.stage(packet, 4, who, xdp_micro.ifindex(network.router, at.node.name))
        return rate(bench, network, packet, comes_back=True)

    return measure


def past(
    bench: xdp_micro.Harness, network: Topology, program: str, who: Sequence[xdp_micro.Flow]
) -> Measure:
    """Through one of the floor's programs on the second balancer; floor_pass leads to nftables."""
    node = network.balancers[1]

    def measure() -> float:
        other = Balancer(node)
        packet = xdp_micro.tcp(other, xdp_micro.NOBODY[4], xdp_web.NFTABLES_VIP, 0)
        bench.stage(packet, 4, who, xdp_micro.ifindex(network.router, node.name))
        with attached(bench, program, node, "eth0"):
            return rate(bench, network, packet, comes_back=program != "floor_drop")

    return measure
