# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How the host reaches a backend: the kernel's answer, as the data plane will get it.

Layout: ``struct rtmsg`` and the RTA_ attributes of include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from ..bpf import rtnetlink
from .layout import Address

_GETROUTE = 26
_DST, _OIF, _GATEWAY, _METRICS, _VIA = 1, 4, 5, 8, 18
_METRIC_MTU = 2  # RTAX_MTU
_UNICAST = 1
_TYPES = {2: "local", 3: "broadcast", 4: "anycast", 5: "multicast"}
_HEADER = struct.Struct("=8BI")

_UNREACHABLE = {
    errno.ENETUNREACH: "there is no route to it",
    errno.EHOSTUNREACH: "its route says unreachable",
    errno.EINVAL: "its route says blackhole",
    errno.EACCES: "its route says prohibit",
}


@dataclass(frozen=True)
class Route:
    """The way to one address. ``refusal`` says why there is none; ``mtu`` is in bytes."""

    refusal: str = ""
    interface: str = ""
    ifindex: int = 0
    gateway: Address | None = None
    mtu: int = 0


def routes(addresses: Iterable[Address]) -> dict[Address, Route]:
    """The route to each address from the current network namespace."""
    wanted = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    if not wanted:
        return {}
    interfaces = {each.ifindex: each for each in rtnetlink.interfaces()}
    return {address: _route(address, interfaces) for address in wanted}


def _route(address: Address, interfaces: dict[int, rtnetlink.Interface]) -> Route:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    header = _HEADER.pack(family, address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body = header + rtnetlink.attribute(_DST, address.packed)
    try:
        answer = rtnetlink.request(_GETROUTE, 0, body, f"find the route to {address}")[0]
    except OSError as error:
        if error.errno not in _UNREACHABLE:
            raise
        return Route(_UNREACHABLE[error.errno])
    kind = _HEADER.unpack_from(answer)[7]
    found = rtnetlink.attributes(answer[_HEADER.size :])
    if kind != _UNICAST:
        return Route(f"to this host it is a {_TYPES.get(kind, 'special')} address")
    interface = interfaces.get(rtnetlink.as_u32(found.get(_OIF)))
    if interface is None:
        return Route("its route names no interface")
    metrics = rtnetlink.attributes(found.get(_METRICS, b""))
    mtu = rtnetlink.as_u32(metrics.get(_METRIC_MTU)) or interface.mtu
    return Route("", interface.name, interface.ifindex, _gateway(found), mtu)


def _gateway(found: dict[int, bytes]) -> Address | None:
    """The next hop, which may be of another family than the address (RTA_VIA)."""
    raw = found.get(_GATEWAY) or found.get(_VIA, b"")[2:]
    return ipaddress.ip_address(raw) if raw else None
