# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes back a change to a server: the words for ip(8)."""

from __future__ import annotations

import ipaddress

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.engine import Change
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import backend_need, backend_undo
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.backend_host import Host, Interface

HOST = Host(
    interfaces={
        "lo": Interface("lo", 65536, True, frozenset({ipaddress.ip_address("192.0.2.1")})),
        "lb4_1": Interface("lb4_1", 1480, True, frozenset(), "10.0.0.1"),
        "lb6_1": Interface("lb6_1", 1452, False, frozenset(), "fd00::1"),
        "lb4_2": Interface("lb4_2", 1480, True, frozenset({backend_need.DUMMY}), "10.0.0.2"),
    },
    sysctls={"lb4_1/rp_filter": 2, "eth0/arp_ignore": 0},
    rules=frozenset(),
    routes={4: "", 6: ""},
    defaults={4: "", 6: ""},
)


def change(action: str, target: str, words: str, before: str = "") -> Change:
    shown = {"route": before or None}
    return Change(action, target, shown, None, detail=tuple(words.split()))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (
            change("add address", "192.0.2.1 dev lo", "address add 192.0.2.1/32 dev lo scope host"),
            ["address delete 192.0.2.1/32 dev lo"],
        ),
        (
            change("remove address", "2001:db8::1 dev lo", "address delete 2001:db8::1/128 dev lo"),
            ["address add 2001:db8::1/128 dev lo nodad preferred_lft 0"],
        ),
        (
            change("add tunnel", "lb4_1", "link add lb4_1 type ipip local 10.0.0.1"),
            ["link delete lb4_1"],
        ),
        (
            change("remove tunnel", "lb4_1", "link delete lb4_1"),
            ["link add lb4_1 type ipip local 10.0.0.1", "link set lb4_1 up"],
        ),
        (
            change("remove tunnel", "lb6_1", "link delete lb6_1"),
            ["link add lb6_1 type ip6tnl mode any local fd00::1"],
        ),
        (
            change("remove tunnel", "lb4_2", "link delete lb4_2"),
            [
                "link add lb4_2 type ipip local 10.0.0.2",
                "address add 192.0.0.8/32 dev lb4_2 scope host",
                "link set lb4_2 up",
            ],
        ),
        (
            change("give address", "192.0.0.8 dev lb4_1", "address add 192.0.0.8/32 dev lb4_1"),
            ["address delete 192.0.0.8/32 dev lb4_1"],
        ),
        (change("bring up", "lb6_1", "link set lb6_1 up"), ["link set lb6_1 down"]),
        (
            change(
                "add rule",
                "7791: from 192.0.2.1",
                "-4 rule add preference 7791 from 192.0.2.1 lookup 7790",
            ),
            ["-4 rule delete preference 7791 from 192.0.2.1 lookup 7790"],
        ),
        (
            change(
                "remove rule",
                "7791: from 192.0.2.1",
                "-4 rule delete preference 7791 from 192.0.2.1 lookup 7790",
            ),
            ["-4 rule add preference 7791 from 192.0.2.1 lookup 7790"],
        ),
        (
            change(
                "set route",
                "table 7790 of IPv4",
                "-4 route replace default dev a advmss 9 table 7790",
            ),
            ["-4 route flush table 7790"],
        ),
        (
            change(
                "set route",
                "table 7790 of IPv4",
                "-4 route replace default dev a table 7790",
                "default dev b",
            ),
            ["-4 route replace default dev b table 7790"],
        ),
        (
            change(
                "remove route",
                "table 7790 of IPv6",
                "-6 route flush table 7790",
                "default dev b advmss 9",
            ),
            ["-6 route replace default dev b advmss 9 table 7790"],
        ),
        (Change("set", "eth0/arp_ignore", detail=("eth0/arp_ignore", 1)), []),
    ],
)
def test_the_words_that_take_it_back(made: Change, words: list[str]) -> None:
    assert [" ".join(each) for each in backend_undo.inverse(made, HOST)] == words


def test_whose_sysctls_are_to_be_known_before() -> None:
    assert backend_undo.names_of(change("remove tunnel", "lb4_1", "link delete lb4_1")) == ["lb4_1"]
    assert backend_undo.names_of(Change("set", "eth0/arp_ignore")) == ["eth0"]
    assert backend_undo.names_of(change("add address", "192.0.2.1 dev lo", "")) == []
