# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that the data plane must not touch: it leaves them on TCP, they work, and it counts why."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from dataplane import Accelerator
from lab import Namespace, Place, Wire
from traffic import (
    PORT,
    Connection,
    Path_,
    connection,
    difference,
    listen,
    receive,
    send_and_compare,
    wire_bytes,
)

IPPROTO_MPTCP, MPTCP_INFO, SOL_MPTCP = 262, 1, 284  # linux/in.h, linux/mptcp.h
MSG_FASTOPEN, TCP_FASTOPEN = 0x20000000, 23  # linux/socket.h, linux/tcp.h
TCP_ULP = 31  # linux/tcp.h
LENGTH = 1 << 20
RIGHT = "10.77.0.2"


def move_both_ways(made: Connection) -> None:
    for sender, receiver in made.ends():
        send_and_compare(sender, receiver, os.urandom(LENGTH))


def gained(plane: Accelerator, before: dict[str, int], name: str) -> int:
    return plane.counters()[name] - before[name]


def test_fast_open_data_comes_first(wire: Wire, plane: Accelerator, path: Path_) -> None:
    """Data in the SYN reaches the server before either end is ESTABLISHED: those connections stay on TCP."""
    for side in (wire.left, wire.right):
        side.sysctl("net.ipv4.tcp_fastopen", 3)
    client_place, server_place = path.place(wire.left), path.place(wire.right)
    data = os.urandom(50_000)
    with listen(server_place, RIGHT) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        # the first connection fetches the cookie, the others use it
        for attempt in range(10):
            before = plane.counters()
            used = wire.right.netstat("TCPFastOpenPassive")
            with client_place.socket(timeout=None) as client:
                client.sendto(data[:1000], MSG_FASTOPEN, (RIGHT, PORT))
                server, dummy = listener.accept()
                with server, wire_bytes(wire.left, "veth") as seen:
                    server.settimeout(20)
                    client.sendall(data[1000:2000])
                    client.sendall(data[2000:])
                    received = receive(server, len(data))
                    assert received == data, difference(received, data)
                    move_both_ways(Connection(client, server))
            if attempt:
                assert wire.right.netstat("TCPFastOpenPassive") == used + 1
                assert seen[0] > 2 * LENGTH
                if path.accelerated:
                    assert gained(plane, before, "fast_open") >= 1
                    assert gained(plane, before, "redirected_messages") == 0


def test_fast_open_on_loopback(host: Namespace, plane: Accelerator, path: Path_) -> None:
    host.sysctl("net.ipv4.tcp_fastopen", 3)
    place = path.place(host)
    data = os.urandom(30_000)
    with listen(place, "127.0.0.1") as listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        for dummy in range(10):
            with place.socket(timeout=None) as client:
                client.sendto(data[:1000], MSG_FASTOPEN, ("127.0.0.1", PORT))
                client.sendall(data[1000:2000])
                server, dummy = listener.accept()
                with server:
                    client.sendall(data[2000:])
                    received = receive(server, len(data))
                    assert received == data, difference(received, data)
                    server.sendall(data)
                    received = receive(client, len(data))
                    assert received == data, difference(received, data)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_syn_cookies(host: Namespace, plane: Accelerator, path: Path_, address: str) -> None:
    """A socket made from a cookie has forgotten what the accelerator needs to know."""
    host.sysctl("net.ipv4.tcp_syncookies", 2)
    place = path.place(host)
    before = plane.counters()
    with listen(place, address) as listener:
        for dummy in range(5):
            received = host.netstat("SyncookiesRecv")
            with place.socket(listener.family) as client:
                client.connect((address, PORT))
                server, dummy = listener.accept()
                with server, wire_bytes(host, "lo") as seen:
                    move_both_ways(Connection(client, server))
            assert host.netstat("SyncookiesRecv") == received + 1
            assert seen[0] > 2 * LENGTH
    if path.accelerated:
        assert gained(plane, before, "syn_cookie") == 5
        assert gained(plane, before, "redirected_messages") == 0


def mptcp_listener(place: Place) -> socket.socket:
    listener = place.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", PORT))
    listener.listen()
    return listener


def speaks_mptcp(connected: socket.socket) -> bool:
    """Whether the connection really is Multipath TCP and has not fallen back."""
    try:
        connected.getsockopt(SOL_MPTCP, MPTCP_INFO, 64)
    except OSError:
        return False
    return True


def test_multipath_tcp(host: Namespace, plane: Accelerator, path: Path_) -> None:
    place = path.place(host)
    before = plane.counters()
    with mptcp_listener(place) as listener:
        with place.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as client:
            client.connect(("127.0.0.1", PORT))
            server, dummy = listener.accept()
            with server, wire_bytes(host, "lo") as seen:
                assert speaks_mptcp(client)
                move_both_ways(Connection(client, server))
    assert seen[0] > 2 * LENGTH
    if path.accelerated:
        assert gained(plane, before, "mptcp") == 2
        assert gained(plane, before, "redirected_messages") == 0


def test_multipath_tcp_that_fell_back(host: Namespace, path: Path_) -> None:
    """A plain client of an MPTCP server, which nginx and others may be: the bytes are right, however they go."""
    place = path.place(host)
    with mptcp_listener(place) as listener, place.socket() as client:
        client.connect(("127.0.0.1", PORT))
        server, dummy = listener.accept()
        with server:
            server.settimeout(20)
            for dummy in range(3):
                move_both_ways(Connection(client, server))


def test_an_mptcp_client_of_a_plain_server(host: Namespace, path: Path_) -> None:
    place = path.place(host)
    with listen(place, "127.0.0.1") as listener:
        with place.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as client:
            client.connect(("127.0.0.1", PORT))
            server, dummy = listener.accept()
            with server:
                for dummy in range(3):
                    move_both_ways(Connection(client, server))


def test_kernel_tls(host: Namespace, path: Path_) -> None:
    """A kernel that has kTLS may switch it on for an accelerated socket; one that has not says ENOENT on either path."""
    place = path.place(host)
    with connection(place, place) as made:
        with contextlib.suppress(FileNotFoundError):
            made.client.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        # the upper-layer protocol is on, no keys yet: plain bytes go on
        move_both_ways(made)
