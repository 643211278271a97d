# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Whether a service's new backends can be reached in the way that it forwards: a pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..resource.errors import Failure
from .layout import Address
from .model import Backend, Service
from .neighbours import Neighbour

_HEADER_BYTES = {4: 20, 6: 40}  # of the packet around the packet
# What every link of a family must carry: RFC 8200 section 5; RFC 791 names 576 for every host.
_LEAST_BYTES = {4: 576, 6: 1280}
_USUAL_BYTES = 1500


@dataclass(frozen=True)
class Hop:
    """One backend and the way to it."""

    backend: Backend
    neighbour: Neighbour


def check(
    service: Service, backends: Sequence[Backend], ways: Mapping[Address, Neighbour]
) -> list[str]:
    """Warnings about these backends of a service. Raises Failure for one that cannot be served.

    A backend whose way was not looked up is left out.
    """
    hops = [Hop(each, ways[each.address]) for each in backends if each.address in ways]
    for hop in hops:
        _refuse(service, hop)
    return [*_unresolved(service, hops), *_narrow(service, hops)]


def _refuse(service: Service, hop: Hop) -> None:
    where = f"service {service.name}: backend {hop.backend}"
    route = hop.neighbour.route
    if route.refusal:
        raise Failure(
            f"{where} cannot be reached: {route.refusal}; add a route to it in the network "
            "namespace of the balancer (option netns), correct the address, or set its state to "
            "disabled until there is one"
        )
    if service.forwarding == "dsr" and route.gateway is not None:
        raise Failure(
            f"{where} is behind the gateway {route.gateway} ({route.interface}), and dsr reaches "
            "only backends on the balancer's own network: packets keep the vip as their "
            "destination, so the gateway would send them back; use forwarding: ipip"
        )
    if service.forwarding == "ipip":
        room = _room(hop)
        least = _LEAST_BYTES[service.vip.version]
        if room < least:
            raise Failure(
                f"{where}: the MTU of {route.interface}, {route.mtu}, is too small for ipip: it "
                f"leaves {room} bytes for a packet to {service.vip}, and IPv{service.vip.version} "
                f"needs {least}; raise it to {least + route.mtu - room} or more"
            )


def _room(hop: Hop) -> int:
    """Bytes that a client's packet may have."""
    return hop.neighbour.route.mtu - _HEADER_BYTES[hop.backend.address.version]


def _unresolved(service: Service, hops: Sequence[Hop]) -> Iterator[str]:
    silent = [hop for hop in hops if hop.neighbour.refusal]
    if silent:
        yield (
            f"service {service.name}: packets to {_listed(silent)} are dropped until the next hop "
            f"answers: {silent[0].neighbour.refusal}"
        )


def _narrow(service: Service, hops: Sequence[Hop]) -> Iterator[str]:
    if service.forwarding != "ipip":
        return
    narrow = [hop for hop in hops if _room(hop) < _USUAL_BYTES]
    if narrow:
        room = min(map(_room, narrow))
        yield (
            f"service {service.name}: packets of more than {room} bytes do not fit into the tunnel "
            f"to {_listed(narrow)}, so clients are told to send smaller ones, which costs each of "
            f"them a packet; an MTU of {_USUAL_BYTES + narrow[0].neighbour.route.mtu - room} on "
            f"{narrow[0].neighbour.route.interface} avoids that"
        )


def _listed(hops: Sequence[Hop]) -> str:
    """The backends, of many only the first few."""
    shown = ", ".join(str(hop.backend) for hop in hops[:3])
    return shown if len(hops) <= 3 else f"{shown} and {len(hops) - 3} more"
