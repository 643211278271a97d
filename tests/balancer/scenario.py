# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test runs on: a mode of forwarding, a balancer that does it, and the backends that know of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from balancer import Balancer, Service, all_services, running
from topology import Node, Topology

BEHIND_THE_ROUTER = ("backend3", "backend4")
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}


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
    def vip(self) -> str:
        return VIPS[self.family]

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

    @property
    def vip(self) -> str:
        return self.mode.vip

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


@contextmanager
def scenario(
    mode: Mode,
    network: Topology,
    second: bool = False,
    max_entries: Mapping[str, int] | None = None,
) -> Iterator[Scenario]:
    """The mode at work on the first balancer, or the second; the virtual address is routed to it."""
    node = network.balancers[second]
    with ExitStack() as stack:
        if not mode.translates:
            stack.enter_context(network.hosted(mode.vip, network.backends))
        balancer = stack.enter_context(running(node, max_entries))
        made = Scenario(mode, network, balancer)
        made.serve(made.all())
        stack.callback(network.unroute, mode.vip)
        network.route(mode.vip, node)
        yield made
