# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Link-layer addresses of next hops: the kernel resolves them, when asked.

The data plane never sends a packet through the stack, so nothing else makes the kernel ask for the
neighbour it needs, or confirm the one it has. Layouts: ``struct ndmsg``, NTF_, NUD_ and NDA_
constants of include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass

from ..bpf import rtnetlink
from .layout import Address, family_of
from .routes import Route, routes

_NEWNEIGH, _GETNEIGH = 28, 30  # include/uapi/linux/rtnetlink.h
_DST, _LLADDR = 1, 2
_USE = 0x01  # NTF_USE
_HEADER = struct.Struct("=BxxxiHBB")
_FAILED = 0x20
_VALID = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # NUD_VALID, include/net/neighbour.h
_POLL = 0.02  # seconds
_UNKNOWN = (0, "")


@dataclass(frozen=True)
class Neighbour:
    """Who a packet to an address is handed to. ``refusal`` says why nobody is.

    ``hop`` is the gateway, or the address itself where it is on the link; ``link_layer`` is ""
    where the device needs none.
    """

    refusal: str
    route: Route
    hop: Address
    link_layer: str = ""


def nudge(addresses: Iterable[Address]) -> None:
    """Have the kernel resolve, or confirm, the next hop to each address; wait for nothing.

    Works in the current network namespace. An address that cannot be reached is left out, without
    a word: ``resolve`` says why.
    """
    for ifindex, hop in {_hop(address, way) for address, way in _open(routes(addresses))}:
        _use(ifindex, hop)


def resolve(addresses: Iterable[Address], timeout: float = 3.0) -> dict[Address, Neighbour]:
    """The neighbour towards each address, waiting at most ``timeout`` seconds for all of them.

    Works in the current network namespace, and leaves entries that the kernel ages as its own.
    """
    ways = routes(addresses)
    wanted = {_hop(address, way) for address, way in _open(ways)}
    known = {key: _UNKNOWN for key in wanted if not _use(*key)}
    end = time.monotonic() + timeout
    while wanted - known.keys():
        late = time.monotonic() >= end
        for key in wanted - known.keys():
            state, link_layer = _state(*key)
            if state & (_VALID | _FAILED) or late:
                known[key] = (state, link_layer)
        if wanted - known.keys():
            time.sleep(_POLL)
    return {address: _neighbour(address, way, known) for address, way in ways.items()}


def _open(ways: dict[Address, Route]) -> list[tuple[Address, Route]]:
    return [(address, way) for address, way in ways.items() if not way.refusal]


def _hop(address: Address, way: Route) -> tuple[int, Address]:
    """The interface and the address on its link."""
    return way.ifindex, way.gateway or address


def _neighbour(
    address: Address, way: Route, known: dict[tuple[int, Address], tuple[int, str]]
) -> Neighbour:
    if way.refusal:
        return Neighbour(way.refusal, way, address)
    _ifindex, hop = _hop(address, way)
    state, link_layer = known[_hop(address, way)]
    if state & _VALID:
        return Neighbour("", way, hop, link_layer)
    asked = "neighbour discovery" if hop.version == 6 else "ARP"
    who = f"its gateway {hop}" if way.gateway else "it"
    return Neighbour(f"{who} does not answer {asked} on {way.interface}", way, hop)


def _key(ifindex: int, hop: Address, flags: int = 0) -> bytes:
    """``struct ndmsg`` and the address: which entry is meant."""
    return _HEADER.pack(family_of(hop), ifindex, 0, flags, 0) + rtnetlink.attribute(
        _DST, hop.packed
    )


def _use(ifindex: int, hop: Address) -> bool:
    """Behave as if a packet had to go there. False when the interface is down or gone."""
    doing = f"resolve {hop}"
    try:
        rtnetlink.request(_NEWNEIGH, rtnetlink.F_CREATE, _key(ifindex, hop, _USE), doing)
    except OSError as error:
        if error.errno in (errno.ENODEV, errno.ENETDOWN, errno.ENOBUFS, errno.EINVAL):
            return False
        raise
    return True


def _state(ifindex: int, hop: Address) -> tuple[int, str]:
    """NUD_ bits and link-layer address of an entry; 0 when there is none. Since Linux 5.0."""
    try:
        answer = rtnetlink.request(_GETNEIGH, 0, _key(ifindex, hop), f"look for neighbour {hop}")[0]
    except OSError as error:
        if error.errno == errno.ENOENT:
            return _UNKNOWN
        raise
    _family, _ifindex, state, _flags, _type = _HEADER.unpack_from(answer)
    link_layer = rtnetlink.attributes(answer[_HEADER.size :]).get(_LLADDR, b"")
    return state, ":".join(f"{byte:02x}" for byte in link_layer)
