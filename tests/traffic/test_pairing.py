# SPDX-License-Identifier: GPL-3.0-or-later
"""Which connections are accelerated: those whose two ends are both on the host, however they are addressed."""

from __future__ import annotations

import os
import socket

import pytest
from dataplane import Accelerator
from lab import Namespace, Place, Wire
from traffic import (
    PORT,
    Connection,
    Path_,
    assert_path,
    connection,
    listen,
    receive,
    receive_all,
    send_and_compare,
    wire_bytes,
)

MEGABYTE = 1 << 20


def move_both_ways(made: Connection, length: int = MEGABYTE) -> None:
    for sender, receiver in made.ends():
        send_and_compare(sender, receiver, os.urandom(length))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1"])
def test_loopback_is_accelerated(host: Namespace, path: Path_, address: str) -> None:
    place = path.place(host)
    with wire_bytes(host, "lo") as seen, connection(place, place, address) as made:
        move_both_ways(made)
    assert_path(path, seen, 2 * MEGABYTE)


def dual_stack_server(server: Place) -> socket.socket:
    listener = server.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::", PORT))
    listener.listen()
    return listener


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1", "::1"])
def test_dual_stack_server_is_accelerated(host: Namespace, path: Path_, address: str) -> None:
    place = path.place(host)
    with wire_bytes(host, "lo") as seen, dual_stack_server(place) as listener:
        with place.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.connect((address, PORT))
            server, dummy = listener.accept()
            with server:
                move_both_ways(Connection(client, server))
    assert_path(path, seen, 2 * MEGABYTE)


def test_v4_mapped_client_of_an_ipv4_server_is_accelerated(host: Namespace, path: Path_) -> None:
    place = path.place(host)
    with wire_bytes(host, "lo") as seen, listen(place, "127.0.0.1") as listener:
        with place.socket(socket.AF_INET6) as client:
            client.connect(("::ffff:127.0.0.1", PORT))
            server, dummy = listener.accept()
            with server:
                move_both_ways(Connection(client, server))
    assert_path(path, seen, 2 * MEGABYTE)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_two_namespaces_are_accelerated(wire: Wire, path: Path_, family: int) -> None:
    address = wire.addresses[family][1]
    client, server = path.place(wire.left), path.place(wire.right)
    with wire_bytes(wire.left, "veth") as seen, connection(client, server, address) as made:
        move_both_ways(made)
    assert_path(path, seen, 2 * MEGABYTE)


def test_translated_addresses_are_accelerated(plane: Accelerator, wire: Wire, path: Path_) -> None:
    """The client connects to 10.99.0.1:7000 and reaches 10.77.0.2:7001: no 4-tuple is the other's mirror."""
    plane.allow_networks(["10.99.0.0/24"])
    rules = """
        table ip test {
            chain output {
                type nat hook output priority -100
                ip daddr 10.99.0.1 tcp dport 7000 dnat to 10.77.0.2:7001
            }
        }"""
    wire.left.outside.run("nft", rules)
    wire.left.ip("route add 10.99.0.0/24 dev veth")
    client = path.place(wire.left).socket()
    with client, wire_bytes(wire.left, "veth") as seen:
        with listen(path.place(wire.right), "10.77.0.2", 7001) as listener:
            client.connect(("10.99.0.1", 7000))
            server, dummy = listener.accept()
            with server:
                move_both_ways(Connection(client, server))
    assert_path(path, seen, 2 * MEGABYTE)


@pytest.mark.parametrize("outside", ["client", "server"])
def test_one_end_outside_the_cgroup_stays_on_tcp(
    plane: Accelerator, wire: Wire, outside: str
) -> None:
    """The end inside is in the map, its messages find nobody: no error, no byte lost, counted."""
    client = wire.left.outside if outside == "client" else wire.left.inside
    server = wire.right.outside if outside == "server" else wire.right.inside
    before = plane.counters()
    with wire_bytes(wire.left, "veth") as seen:
        with connection(client, server, "10.77.0.2") as made:
            move_both_ways(made)
    assert seen[0] >= 2 * MEGABYTE
    after = plane.counters()
    assert after["no_peer"] - before["no_peer"] == 1
    assert after["redirected_messages"] == before["redirected_messages"]


def bound_connection(place: Place, listener: socket.socket, port: int) -> socket.socket:
    client = place.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("127.0.0.1", port))
    client.connect(listener.getsockname())
    return client


def test_equal_tuples_in_two_namespaces_do_not_mix(wire: Wire, path: Path_) -> None:
    """The same 4-tuple lives in two namespaces at once: each client hears its own server."""
    with listen(path.place(wire.left), "127.0.0.1") as one:
        with listen(path.place(wire.right), "127.0.0.1") as two:
            left = bound_connection(path.place(wire.left), one, 40000)
            right = bound_connection(path.place(wire.right), two, 40000)
            left_server, right_server = one.accept()[0], two.accept()[0]
            with left, right, left_server, right_server:
                for number in range(50):
                    left_server.sendall(b"left %6d" % number)
                    right_server.sendall(b"right%6d" % number)
                    left.sendall(b"LEFT %6d" % number)
                    right.sendall(b"RIGHT%6d" % number)
                for number in range(50):
                    assert receive(left, 11) == b"left %6d" % number
                    assert receive(right, 11) == b"right%6d" % number
                    assert receive(left_server, 11) == b"LEFT %6d" % number
                    assert receive(right_server, 11) == b"RIGHT%6d" % number


def test_a_reused_tuple_in_another_namespace_hears_nothing_foreign(wire: Wire, path: Path_) -> None:
    """One end of the old connection still sends when another namespace reuses its 4-tuple."""
    with listen(path.place(wire.left), "127.0.0.1") as one:
        with listen(path.place(wire.right), "127.0.0.1") as two:
            gone = bound_connection(path.place(wire.left), one, 40001)
            talkative = one.accept()[0]
            talkative.sendall(b"welcome")
            assert receive(gone, 7) == b"welcome"
            gone.close()
            stranger = bound_connection(path.place(wire.right), two, 40001)
            server = two.accept()[0]
            with talkative, stranger, server:
                with pytest.raises(OSError):
                    for dummy in range(10):
                        talkative.sendall(b"secret of the left namespace")
                server.sendall(b"for you")
                server.shutdown(socket.SHUT_WR)
                assert receive_all(stranger) == b"for you"


def test_a_reused_tuple_in_one_namespace_starts_clean(host: Namespace, path: Path_) -> None:
    """Close and connect again with the same ports, many times: no byte of one connection is in the next."""
    place = path.place(host)
    host.sysctl("net.ipv4.tcp_tw_reuse", 1)
    with listen(place, "127.0.0.1") as listener:
        for number in range(100):
            client = bound_connection(place, listener, 40002)
            server = listener.accept()[0]
            client.sendall(b"request %4d" % number)
            assert receive(server, 12) == b"request %4d" % number
            server.sendall(b"answer %4d, of which the client reads half" % number)
            assert receive(client, 11) == b"answer %4d" % number
            # with a reset there is no TIME_WAIT to keep the tuple
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
            client.close()
            server.close()


def test_a_socket_connected_to_itself_works(host: Namespace, path: Path_) -> None:
    with path.place(host).socket() as alone:
        alone.bind(("127.0.0.1", PORT))
        alone.connect(("127.0.0.1", PORT))
        for number in range(100):
            alone.sendall(b"to myself %4d" % number)
            assert receive(alone, 14) == b"to myself %4d" % number
