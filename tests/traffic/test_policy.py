# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy: nothing that is not named is accelerated, and a change holds for the next connection, with no reload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataplane import Accelerator, accelerator, bpftool, port_prefixes
from lab import Namespace, Place, Wire, namespace
from traffic import churn, connection, send_and_compare, wire_bytes

LENGTH = 1 << 20


def bypasses(
    watched: Namespace, interface: str, client: Place, server: Place, address: str, port: int
) -> bool:
    """Moves a megabyte each way; whether the interface did not see it. The bytes arrive in any case."""
    with wire_bytes(watched, interface) as seen, connection(client, server, address, port) as made:
        for sender, receiver in made.ends():
            send_and_compare(sender, receiver, os.urandom(LENGTH))
    assert seen[0] < LENGTH // 10 or seen[0] > 2 * LENGTH, "one direction only?"
    return seen[0] < LENGTH // 10


def on_loopback(host: Namespace, port: int, address: str = "127.0.0.1") -> bool:
    return bypasses(host, "lo", host.inside, host.inside, address, port)


def test_only_the_ports_of_the_ranges(plane: Accelerator, host: Namespace) -> None:
    plane.deny_ports([(7000, 7999)])
    plane.allow_ports([(8003, 8012), (9000, 9000)])
    inside = [8003, 8007, 8008, 8012, 9000]
    outside = [7000, 8002, 8013, 8999, 9001, 16006]
    before = plane.counters()
    assert [port for port in inside + outside if on_loopback(host, port)] == inside
    after = plane.counters()
    assert after["not_policy"] - before["not_policy"] == 2 * len(outside)
    assert after["admitted"] - before["admitted"] == 2 * len(inside)


def test_the_port_is_the_services(plane: Accelerator, host: Namespace) -> None:
    """A client that happens to have a listed port does not make another service accelerated."""
    with host.inside.socket() as listener, host.inside.socket() as client:
        listener.bind(("127.0.0.1", 6500))
        listener.listen()
        client.bind(("127.0.0.1", 7500))
        with wire_bytes(host, "lo") as seen:
            client.connect(("127.0.0.1", 6500))
            server, dummy = listener.accept()
            with server:
                send_and_compare(client, server, os.urandom(LENGTH))
        assert seen[0] > LENGTH


def test_every_port(plane: Accelerator, host: Namespace) -> None:
    plane.allow_ports([(0, 65535)])
    assert on_loopback(host, 1)
    assert on_loopback(host, 65535)


def test_a_port_added_and_removed_at_run_time(plane: Accelerator, host: Namespace) -> None:
    assert not on_loopback(host, 8500)
    plane.allow_ports([(8500, 8500)])
    assert on_loopback(host, 8500)
    with connection(host.inside, host.inside, "127.0.0.1", 8500) as old:
        send_and_compare(old.client, old.server, b"accelerated")
        plane.deny_ports([(8500, 8500)])
        assert not on_loopback(host, 8500)
        with wire_bytes(host, "lo") as seen:
            send_and_compare(old.client, old.server, os.urandom(LENGTH))
        assert seen[0] < LENGTH // 10, "a live connection keeps what it was given"


@pytest.mark.parametrize(
    ("listed", "address", "expected"),
    [
        ("127.0.0.0/8", "127.255.1.2", True),
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.1/32", "127.0.0.2", False),
        ("127.0.0.0/30", "127.0.0.3", True),
        ("127.0.0.0/30", "127.0.0.4", False),
        ("::1/128", "::1", True),
        ("::1/128", "127.0.0.1", False),
        ("fd77:1::/48", "fd77:1:0:2::3", True),
        ("fd77:1::/48", "fd77:2::3", False),
        ("fd77::/16", "fd77:2::3", True),
        ("::/0", "fd77:2::3", True),
        ("::/0", "127.0.0.1", True),
        ("0.0.0.0/0", "127.0.0.1", True),
        ("0.0.0.0/0", "::1", False),
    ],
)
def test_networks(
    plane: Accelerator, host: Namespace, listed: str, address: str, expected: bool
) -> None:
    plane.deny_networks(["127.0.0.0/8", "10.77.0.0/16", "::1/128", "fd77::/64"])
    plane.allow_networks([listed])
    if address.startswith("fd77"):
        host.ip(f"addr add {address}/64 dev lo nodad")
        host.await_address(address)
    assert on_loopback(host, 7000, address) == expected


def test_both_ends_have_to_be_in_a_network(plane: Accelerator, wire: Wire) -> None:
    places = wire.left.inside, wire.right.inside
    plane.deny_networks(["10.77.0.0/16"])
    plane.allow_networks(["10.77.0.2/32"])
    assert not bypasses(wire.left, "veth", *places, "10.77.0.2", 7000)
    plane.allow_networks(["10.77.0.1/32"])
    assert bypasses(wire.left, "veth", *places, "10.77.0.2", 7000)
    plane.deny_networks(["10.77.0.2/32"])
    assert not bypasses(wire.left, "veth", *places, "10.77.0.2", 7000)


def test_an_ipv6_network_between_namespaces(plane: Accelerator, wire: Wire) -> None:
    places = wire.left.inside, wire.right.inside
    assert bypasses(wire.left, "veth", *places, "fd77::2", 7000)
    plane.deny_networks(["fd77::/64"])
    assert not bypasses(wire.left, "veth", *places, "fd77::2", 7000)
    plane.allow_networks(["fd77::/126"])
    assert bypasses(wire.left, "veth", *places, "fd77::2", 7000)


def test_an_excluded_port_is_plain_tcp(plane: Accelerator, host: Namespace) -> None:
    """A service that is not named keeps what redirection would take from it: no program sees its sockets."""
    before = plane.counters()
    with connection(host.inside, host.inside, "127.0.0.1", 6000) as made:
        sockets = plane.live_sockets()
        send_and_compare(made.client, made.server, os.urandom(LENGTH))
    after = plane.counters()
    assert sockets == 0
    assert after["tcp_messages"] == before["tcp_messages"]
    assert after["redirected_messages"] == before["redirected_messages"]


def test_counters_agree_with_what_was_sent(plane: Accelerator, host: Namespace) -> None:
    with connection(host.inside, host.inside) as made:
        for dummy in range(10):
            made.client.sendall(bytes(1000))
            send_and_compare(made.server, made.client, bytes(2000))
        made.client.sendall(b"")
    counted = plane.counters()
    assert counted["established"] == 2
    assert counted["admitted"] == 2
    assert counted["paired"] == 2
    assert counted["redirected_messages"] == 20
    assert counted["redirected_bytes"] == 30_000
    assert counted["tcp_messages"] == counted["no_peer"] == counted["map_full"] == 0


@pytest.fixture
def small(bpffs: Path, group: Path) -> Iterator[tuple[Accelerator, Namespace]]:
    with accelerator(bpffs / "small", group, max_sockets=6) as plane, namespace(group) as host:
        yield plane, host


def test_a_full_map_falls_back(small: tuple[Accelerator, Namespace]) -> None:
    """Three connections fit; the others are plain TCP, and there is room again when one ends."""
    plane, host = small
    with connection(host.inside, host.inside, port=7001) as one:
        with connection(host.inside, host.inside, port=7002):
            with connection(host.inside, host.inside, port=7003):
                assert plane.live_sockets() == 6
                assert not on_loopback(host, 7004)
                assert not on_loopback(host, 7005)
                assert plane.counters()["map_full"] == 4
                send_and_compare(one.client, one.server, os.urandom(LENGTH))
            assert on_loopback(host, 7006)
    assert plane.is_empty(5)


def test_a_map_with_room_for_one_end(bpffs: Path, group: Path) -> None:
    """One end is in the map, the other is not: both directions stay on TCP."""
    with accelerator(bpffs / "odd", group, max_sockets=1) as plane, namespace(group) as host:
        assert not on_loopback(host, 7000)
        counted = plane.counters()
        assert counted["map_full"] == 1
        assert counted["no_peer"] == 1
        assert counted["redirected_messages"] == 0


def test_ranges_become_prefixes() -> None:
    for first, last in ((0, 65535), (1, 65535), (7000, 7999), (80, 80), (1023, 1025), (0, 0)):
        covered: list[int] = []
        for port, length in port_prefixes(first, last):
            covered += range(port, port + (1 << (16 - length)))
        assert covered == list(range(first, last + 1))


def test_events_are_off_and_can_be_switched_on(
    plane: Accelerator, host: Namespace, peer: Path
) -> None:
    """Nobody reads the ring buffer here: what fills it up is counted as lost, and without events nothing is."""
    assert bpftool("map", "show", "pinned", plane.map("events"))["type"] == "ringbuf"
    host.sysctl("net.ipv4.tcp_tw_reuse", 1)
    churn(peer, host.inside, host.inside, "127.0.0.1", 3000)
    assert plane.counters()["events_lost"] == 0
    plane.set("events", 1)
    churn(peer, host.inside, host.inside, "127.0.0.1", 3000)
    assert plane.counters()["events_lost"] > 0
