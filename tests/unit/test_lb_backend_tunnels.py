# SPDX-License-Identifier: GPL-3.0-or-later
"""Tunnel devices of a server: each is up and has an IPv4 address, whoever made it."""

from __future__ import annotations

import ipaddress

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import backend, backend_need
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.backend_host import Host, Interface

OWN = {4: "10.77.0.2", 6: "fd77::2"}
VIP = ipaddress.ip_address("192.0.2.1")


def declared(family: int) -> backend.Desired:
    service = {
        "name": "web",
        "vip": str(VIP),
        "forwarding": "ipip",
        "backends": [{"address": OWN[family]}],
    }
    return backend.desired(
        {"state": "present", "services": [service], "unpack": "device", "mss": False}
    )


def host(*tunnels: Interface) -> Host:
    addresses = frozenset(map(ipaddress.ip_address, OWN.values()))
    interfaces = (
        Interface("lo", 65536, True, frozenset({VIP})),
        Interface("eth0", 1500, True, addresses),
        *tunnels,
    )
    names = ("all", "default", "eth0", *(each.name for each in tunnels))
    values = {"arp_ignore": 1, "arp_announce": 2, "rp_filter": 2}
    return Host(
        interfaces={each.name: each for each in interfaces},
        sysctls={f"{name}/{key}": value for name in names for key, value in values.items()},
        rules=frozenset(),
        routes={4: "", 6: ""},
        defaults={4: "", 6: ""},
    )


def planned(family: int, *tunnels: Interface) -> list[tuple[str, str]]:
    observed = backend.Observed(host(*tunnels), backend.Record())
    return [
        (change.action, " ".join(change.detail))
        for change in backend.plan(declared(family), observed)
    ]


@pytest.mark.parametrize("family", [4, 6])
def test_a_new_tunnel_gets_an_address(family: int) -> None:
    name = backend_need.tunnel_name(ipaddress.ip_address(OWN[family]))
    kind = {4: "ipip", 6: "ip6tnl mode any"}[family]
    assert planned(family) == [
        ("add tunnel", f"link add {name} type {kind} local {OWN[family]}"),
        ("give address", f"address add 192.0.0.8/32 dev {name} scope host"),
        ("bring up", f"link set {name} up"),
    ]


def test_a_tunnel_without_an_address_gets_one() -> None:
    name = backend_need.tunnel_name(ipaddress.ip_address(OWN[4]))
    assert planned(4, Interface(name, 1480, True, frozenset(), OWN[4])) == [
        ("give address", f"address add 192.0.0.8/32 dev {name} scope host")
    ]


def test_a_tunnel_that_is_right_is_left_alone() -> None:
    name = backend_need.tunnel_name(ipaddress.ip_address(OWN[4]))
    there = Interface(name, 1480, True, frozenset({backend_need.DUMMY}), OWN[4])
    assert planned(4, there) == []
