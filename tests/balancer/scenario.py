# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test runs on: a mode of forwarding, a balancer that does it, and the backends that know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from balancer import Balancer, Service, all_services, running
from topology import LAN4, LAN6, Node, Topology

BEHIND_THE_ROUTER = ("backend3", "backend4")


@dataclass(frozen=True)
class Mode:
    """A way to forward, the family of the clients' packets and that of the backends' addresses."""

    forwarding: str
    family: int
    backend_family: int

    def __str__(self) -> str:
        inner, outer = self.family, self.backend_family
        return f"{self.forwarding}{inner}" + (f"in{outer}" if inner != outer else "")

    @property
    def translates(self) -> bool:
        """Whether answers come back through the balancer."""
        return self.forwarding == "nat"


DSR4, DSR6 = Mode("dsr", 4, 4), Mode("dsr", 6, 6)
IPIP4, IPIP6, IPIP4IN6 = Mode("ipip", 4, 4), Mode("ipip", 6, 6), Mode("ipip", 4, 6)
NAT4, NAT6 = Mode("nat", 4, 4), Mode("nat", 6, 6)
MODES = (DSR4, DSR6, IPIP4, IPIP6, IPIP4IN6, NAT4, NAT6)
STATELESS = tuple(mode for mode in MODES if not mode.translates)
ONE_EACH = (DSR4, IPIP4IN6, NAT4)


def backend_address(mode: Mode, node: Node) -> str:
    """Half of the tunnels lead behind the router: there the next hop is a gateway."""
    is_far = mode.forwarding == "ipip" and node.name in BEHIND_THE_ROUTER
    return node.far[mode.backend_family] if is_far else node.address(mode.backend_family)


def members(mode: Mode, nodes: Sequence[Node], **of_all: Any) -> list[dict[str, Any]]:
    """The boxes as a service's backends."""
    return [{"address": backend_address(mode, node), **of_all} for node in nodes]


@dataclass(frozen=True)
class Scenario:
    """One balancer that serves one virtual address, from all four backends to begin with."""

    mode: Mode
    network: Topology
    balancer: Balancer
    vip: str

    @property
    def client(self) -> Node:
        return self.network.clients[0]

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.network.backends}

    def serve(self, backends: Sequence[Mapping[str, Any]], **more: Any) -> Any:
        """Declare everything that is on offer, with these backends."""
        return self.balancer.declare(self.services(backends), **more)

    def services(self, backends: Sequence[Mapping[str, Any]]) -> list[Service]:
        return all_services(self.vip, self.mode.forwarding, backends)

    def all(self, **of_all: Any) -> list[dict[str, Any]]:
        return members(self.mode, self.network.backends, **of_all)


def vip_of(number: int, family: int) -> str:
    """A virtual address that no other scenario of this network has: none sees what another left on its way."""
    if family == 4:
        return f"172.16.{number // 250}.{1 + number % 250}"
    return f"2001:db8::{1 + number:x}"


@contextmanager
def sources_of(number: int, node: Node) -> Iterator[dict[str, str]]:
    """Addresses for a balancer to send from that none of the scenarios before had, for the same reason."""
    last = 100 + number % 100
    made = {"ipv4": f"{LAN4}.{last}", "ipv6": f"{LAN6}:{last}"}
    node.ip(
        f"addr add {made['ipv4']}/32 dev eth0",
        f"addr add {made['ipv6']}/128 dev eth0 nodad preferred_lft 0",
    )
    try:
        yield made
    finally:
        node.run("ip", "addr", "del", f"{made['ipv4']}/32", "dev", "eth0")
        node.run("ip", "addr", "del", f"{made['ipv6']}/128", "dev", "eth0")


@contextmanager
def balancing(
    network: Topology, node: Node, max_entries: Mapping[str, int] | None = None
) -> Iterator[Balancer]:
    """A balancer that serves nothing yet."""
    with sources_of(network.number(), node) as sources, running(node, max_entries) as made:
        made.sources = sources
        yield made


@contextmanager
def scenario(
    mode: Mode,
    network: Topology,
    second: bool = False,
    max_entries: Mapping[str, int] | None = None,
) -> Iterator[Scenario]:
    """The mode at work on the first balancer, or the second; the virtual address is routed to it."""
    node = network.balancers[second]
    vip = vip_of(network.number(), mode.family)
    with ExitStack() as stack:
        if not mode.translates:
            stack.enter_context(network.hosted(vip, network.backends))
        balancer = stack.enter_context(balancing(network, node, max_entries))
        made = Scenario(mode, network, balancer, vip)
        made.serve(made.all())
        stack.callback(network.unroute, vip)
        network.route(vip, node)
        yield made
