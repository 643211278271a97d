# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Next hops and their link-layer addresses, in namespaces of the test's own."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import netns
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import neighbours
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.layout import Address

PEER_MAC = "02:00:00:00:77:02"


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def address(text: str) -> Address:
    return ipaddress.ip_address(text)


@pytest.fixture(scope="module")
def wire() -> Iterator[int]:
    """A namespace with lb0 towards a peer in another one, which has 10.77.0.2 and fd77::2."""
    with netns.scratch():
        own = os.stat("/proc/thread-self/ns/net").st_ino
        with subprocess.Popen(["unshare", "-n", "sleep", "120"]) as peer:
            try:
                while os.stat(f"/proc/{peer.pid}/ns/net").st_ino == own:
                    time.sleep(0.01)
                set_up(peer.pid)
                yield peer.pid
            finally:
                peer.kill()


def set_up(peer: int) -> None:
    ip("link", "add", "lb0", "type", "veth", "peer", "name", "peer0")
    ip("link", "set", "peer0", "address", PEER_MAC, "netns", str(peer))
    inside = ["nsenter", f"--net=/proc/{peer}/ns/net"]
    for command in (
        "addr add 10.77.0.2/24 dev peer0",
        "addr add fd77::2/64 dev peer0 nodad",
        "link set peer0 up",
    ):
        subprocess.run([*inside, "ip", *command.split()], check=True)
    for command in (
        "link set lo up",
        "addr add 10.77.0.1/24 dev lb0",
        "addr add fd77::1/64 dev lb0 nodad",
        "link set lb0 up",
        "route add 198.51.100.0/24 via 10.77.0.2 mtu 1400",
        "route add 198.51.101.0/24 via inet6 fd77::2",
        "route add unreachable 198.51.102.0/24",
        "route add 2001:db8::/32 via fd77::2",
    ):
        ip(*command.split())
    await_addresses([], "lb0")
    await_addresses(inside, "peer0")


def await_addresses(inside: list[str], device: str) -> None:
    """Wait until every address may be used, the link-local one too.

    Without one there is no source for neighbour discovery, and the kernel gives it only after it
    has looked for duplicates, up to three seconds after the carrier.
    """
    show = [*inside, "ip", "-6", "-oneline", "address", "show", "dev", device]
    end = time.monotonic() + 15
    while True:
        found = subprocess.run(show, check=True, capture_output=True, text=True).stdout
        if "scope link" in found and "tentative" not in found:
            return
        assert time.monotonic() < end, found
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("target", "hop", "mtu"),
    [
        ("10.77.0.2", "10.77.0.2", 1500),
        ("fd77::2", "fd77::2", 1500),
        ("198.51.100.7", "10.77.0.2", 1400),
        ("198.51.101.7", "fd77::2", 1500),
        ("2001:db8::7", "fd77::2", 1500),
    ],
)
def test_a_next_hop_is_resolved(wire: int, target: str, hop: str, mtu: int) -> None:
    ip("neigh", "flush", "dev", "lb0")
    found = neighbours.resolve([address(target)])[address(target)]
    assert (found.refusal, found.hop, found.link_layer) == ("", address(hop), PEER_MAC)
    assert (found.route.interface, found.route.mtu) == ("lb0", mtu)
    assert PEER_MAC in ip("neigh", "show", hop, "dev", "lb0")
    start = time.monotonic()
    assert neighbours.resolve([address(target)])[address(target)] == found
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(
    ("target", "refusal"),
    [
        ("10.77.0.99", "it does not answer ARP on lb0"),
        ("fd77::99", "it does not answer neighbour discovery on lb0"),
        ("198.51.102.1", "its route says unreachable"),
        ("203.0.113.1", "there is no route to it"),
        ("10.77.0.1", "to this host it is a local address"),
    ],
)
def test_a_next_hop_that_there_is_not(wire: int, target: str, refusal: str) -> None:
    start = time.monotonic()
    found = neighbours.resolve([address(target)], timeout=0.3)[address(target)]
    assert (found.refusal, found.link_layer) == (refusal, "")
    assert time.monotonic() - start < 3


def test_all_are_asked_at_once(wire: int) -> None:
    wanted = [address(f"10.77.0.{number}") for number in range(100, 150)] + [address("10.77.0.2")]
    start = time.monotonic()
    found = neighbours.resolve(wanted, timeout=0.5)
    assert time.monotonic() - start < 10
    assert [each for each, neighbour in found.items() if not neighbour.refusal] == wanted[-1:]


def test_a_silent_gateway_is_named(wire: int) -> None:
    ip("route", "add", "198.51.103.0/24", "via", "10.77.0.98")
    found = neighbours.resolve([address("198.51.103.1")], timeout=0.2)[address("198.51.103.1")]
    assert found.refusal == "its gateway 10.77.0.98 does not answer ARP on lb0"


def test_a_nudge_waits_for_nothing(wire: int) -> None:
    ip("neigh", "flush", "dev", "lb0")
    neighbours.nudge(map(address, ("198.51.100.7", "10.77.0.98", "203.0.113.1", "10.77.0.1")))
    end = time.monotonic() + 10
    while PEER_MAC not in ip("neigh", "show", "10.77.0.2") and time.monotonic() < end:
        time.sleep(0.02)
    assert PEER_MAC in ip("neigh", "show", "10.77.0.2")
    assert ip("neigh", "show", "10.77.0.1") == ""


def test_a_stale_entry_is_confirmed(wire: int) -> None:
    ip("neigh", "replace", "10.77.0.2", "lladdr", PEER_MAC, "dev", "lb0", "nud", "stale")
    neighbours.nudge([address("10.77.0.2")])
    assert "STALE" not in ip("neigh", "show", "10.77.0.2")


def test_a_device_without_link_layer_addresses(wire: int) -> None:
    ip("link", "add", "point77", "type", "veth", "peer", "name", "point78")
    ip("link", "set", "point77", "arp", "off", "up")
    ip("link", "set", "point78", "up")
    ip("route", "add", "198.51.104.0/24", "dev", "point77")
    found = neighbours.resolve([address("198.51.104.1")])[address("198.51.104.1")]
    assert (found.refusal, found.route.interface) == ("", "point77")


def test_nobody(wire: int) -> None:
    assert neighbours.resolve([]) == {}
    neighbours.nudge([])
