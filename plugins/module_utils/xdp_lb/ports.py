# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Ports that the host takes for connections of its own, which ``nat`` has to keep out of.

A backend's answer to such a port is looked up among the connections of ``nat`` first. Source:
ip_local_port_range and ip_local_reserved_ports in Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"
_RESERVED = "/proc/sys/net/ipv4/ip_local_reserved_ports"


def own() -> frozenset[int]:
    """The ports of the current network namespace, IPv4's and IPv6's alike; none if unknown."""
    try:
        with open(_RANGE, encoding="ascii") as taken, open(_RESERVED, encoding="ascii") as left:
            return parse(taken.read(), left.read())
    except FileNotFoundError:
        return frozenset()


def parse(taken: str, reserved: str) -> frozenset[int]:
    """The ports from what the two files say, without those that the kernel leaves alone."""
    first, last = map(int, taken.split())
    return frozenset(range(first, last + 1)).difference(*map(_ports, reserved.split(",")))


def _ports(text: str) -> range:
    """The ports of ``9148-9150`` or ``8080``; an empty text has none."""
    first, _dash, last = text.strip().partition("-")
    return range(int(first), int(last or first) + 1) if first else range(0)
