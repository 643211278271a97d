# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a load balancer's declaration, by itself or on its host: pure functions."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import reach
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.neighbours import Neighbour
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.routes import Route
from ansible_collections.ebpf.fleet.tests.unit.lb_declared import backend, declare, service


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (service(vip="web.example"), "service web: vip: 'web.example' is no IPv4 or IPv6 address"),
        (service(vip="192.0.2.10/32"), "without port, prefix length or name"),
        (service(vip="224.0.0.1"), "vip: 224.0.0.1 is a multicast address"),
        (service(vip="fe80::1"), "a link-local address"),
        (service(vip="::ffff:192.0.2.1"), "an IPv4-mapped address"),
        (service(vip="0.0.0.0"), "the unspecified address"),
        (service(backends=[backend("10.0.0.300")]), "service web: backend: '10.0.0.300' is no IPv4 or IPv6 address"),
        (service(backends=[backend("127.0.0.1")]), "a loopback address"),
        (service(port="0"), "port: '0' is no port: a number from 1 to 65535, or any"),
        (service(port="65536"), "'65536' is no port"),
        (service(port="http"), "'http' is no port"),
        (service(name="my web"), "services[0].name: 'my web' is no name"),
        (service(name="x" * 64), "is no name: at most 63 letters"),
        (service(forwarding="nat", vip="2001:db8::1"), "vip 2001:db8::1 is IPv6 and backend 10.0.0.11 is IPv4; nat needs one family for both"),
        (service(backends=[backend("fd00::11")]), "dsr needs one family for both: give the backend's IPv4 address"),
        (service(forwarding="ipip", vip="2001:db8::1"), "not IPv6 in IPv4: give the backend's IPv6 address"),
        (service(backends=[backend(weight=65536)]), "backend 10.0.0.11: weight: 65536 is out of range: weights are 0 to 65535"),
        (service(backends=[backend(weight=-1)]), "weight: -1 is out of range"),
        (service(backends=[backend(), backend()]), "backend 10.0.0.11 is declared twice"),
        (service(forwarding="nat", backends=[backend(), backend(port=80)]), "backend 10.0.0.11 is declared twice"),
        (service(backends=[backend(port=8080)]), "dsr leaves the port as the client sent it"),
        (service(forwarding="nat", backends=[backend(port=0)]), "'0' is no port: a number from 1 to 65535"),
        (service(backends=[]), "service web has no backends; to stop serving it, remove it"),
        (service(backends=[backend(state="disabled")]), "all backends are disabled, so every packet to 192.0.2.10:80/tcp would be dropped"),
        (service(backends=[backend("192.0.2.10")]), "backend 192.0.2.10 is the vip of service web"),
        (service(health_check={"type": "icmp"}), "health_check of service web: type 'icmp' is none of tcp, http, https"),
    ],
)  # fmt: skip
def test_a_wrong_service_is_refused(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure) as failure:
        declare(declared)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (service(vip="192.0.2.11"), "two services have the name web"),
        (service(name="other"), "services web and other both have 192.0.2.10:80/tcp"),
        (service(name="other", vip="10.0.0.11"), "service web: backend 10.0.0.11 is the vip of service other"),
    ],
)  # fmt: skip
def test_services_that_do_not_go_together_are_refused(second: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure) as failure:
        declare(service(), second)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("options", "declared", "message"),
    [
        ({"sources": {}}, service(forwarding="ipip"), "and there is none for IPv4: set sources.ipv4 (xdp_lb_sources of the role)"),
        ({"sources": {"ipv4": "10.0.0.1"}}, service(forwarding="ipip", backends=[backend("fd00::11")]), "there is none for IPv6"),
        ({"sources": {}}, service(forwarding="nat"), "nat translates with a source address"),
        ({"sources": {"ipv4": "fd00::1"}}, service(), "sources.ipv4: fd00::1 is an IPv6 address"),
        ({"sources": {"ipv6": "here"}}, service(), "sources.ipv6: 'here' is no IPv4 or IPv6 address"),
        ({"nat_ports": {"first": 2000, "last": 1999}}, service(), "the first port, 2000, comes after the last, 1999"),
        ({"nat_ports": {"first": 0}}, service(), "nat_ports.first: 0 is out of range"),
        ({"idle_timeout": {"udp": 0}}, service(), "idle_timeout.udp: 0 is out of range"),
        ({"udp_grace": -1}, service(), "udp_grace: -1 is out of range"),
        ({"pin_dir": "../lb"}, service(), "'../lb' is no pin path"),
        ({"sources": {"ipv4": "192.0.2.10"}}, service(forwarding="nat", port="8080"), "192.0.2.10:8080/tcp is also where backends answer nat"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(
    options: dict[str, Any], declared: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failure) as failure:
        declare(declared, **options)
    assert message in str(failure.value)


def test_dsr_needs_no_source() -> None:
    assert declare(service(), sources={}).services


def test_weight_0_is_draining() -> None:
    (found,) = declare(service(backends=[backend(weight=0), backend("10.0.0.12")])).services
    assert [each.state for each in found.backends] == ["draining", "active"]


def test_the_services_port_is_no_port_of_a_backends_own() -> None:
    (found,) = declare(
        service(forwarding="nat", backends=[backend(port=80), backend("10.0.0.12", port=81)])
    ).services
    assert [each.port for each in found.backends] == [0, 81]


def way(refusal: str = "", gateway: str = "", mtu: int = 1500, silent: str = "") -> Neighbour:
    hop = ipaddress.ip_address(gateway) if gateway else None
    route = Route(refusal, "eth1", 2, hop, mtu)
    return Neighbour(refusal or silent, route, hop or ipaddress.ip_address("10.0.0.11"))


def reached(declared: dict[str, Any], found: Neighbour) -> list[str]:
    (each,) = declare(declared).services
    return reach.check(each, each.backends, {backend.address: found for backend in each.backends})


@pytest.mark.parametrize(
    ("declared", "found", "message"),
    [
        (service(), way("there is no route to it"), r"backend 10\.0\.0\.11 cannot be reached: there is no route to it; add a route"),
        (service(), way(gateway="10.9.9.9"), r"is behind the gateway 10\.9\.9\.9 \(eth1\), and dsr reaches only.*use forwarding: ipip"),
        (service(forwarding="ipip"), way(mtu=595), r"the MTU of eth1, 595, is too small for ipip: it leaves 575 bytes.*IPv4 needs 576; raise it to 596"),
        (service(forwarding="ipip", vip="2001:db8::1", backends=[backend("fd00::11")]), way(mtu=1300), r"leaves 1260 bytes.*IPv6 needs 1280; raise it to 1320"),
        (service(forwarding="ipip", backends=[backend("fd00::11")]), way(mtu=600), r"leaves 560 bytes.*needs 576"),
    ],
)  # fmt: skip
def test_what_cannot_be_reached_is_refused(
    declared: dict[str, Any], found: Neighbour, message: str
) -> None:
    with pytest.raises(Failure, match=message):
        reached(declared, found)


def test_what_may_not_be_reached_is_warned_of() -> None:
    assert reached(service(), way()) == []
    assert reached(service(forwarding="nat"), way(gateway="10.9.9.9")) == []
    assert reached(service(forwarding="ipip"), way(gateway="10.9.9.9", mtu=1520)) == []
    (narrow,) = reached(service(forwarding="ipip"), way())
    assert "packets of more than 1480 bytes" in narrow
    assert "an MTU of 1520 on eth1 avoids that" in narrow
    (silent,) = reached(service(), way(silent="it does not answer ARP on eth1"))
    assert "are dropped until the next hop answers: it does not answer ARP" in silent
