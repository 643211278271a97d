# SPDX-License-Identifier: GPL-3.0-or-later
"""Bytes arrive in the order they were sent, also while one end is not yet in the map and TCP carries the first ones."""

from __future__ import annotations

import random
import select
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from dataplane import Accelerator
from lab import Namespace, Place, Wire
from traffic import (
    PORT,
    Path_,
    churn,
    connection,
    difference,
    listen,
    receive,
    receive_all,
)

SHAPED_CONNECTIONS = 20
RIGHT = "10.77.0.2"
STEERING = pytest.mark.parametrize("cpus", ["0", "3"], ids=["rps-off", "rps-on"])


def become_connected(client: socket.socket) -> None:
    select.select([], [client], [], 5)
    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    client.settimeout(20)


def connect_ahead_of_the_server(wire: Wire, place: Place) -> socket.socket:
    """A client that is ESTABLISHED while its ACK waits behind datagrams on the shaped wire.

    The SYN has to wait too: otherwise the whole handshake is over before the second batch is queued.
    """
    client = place.socket(timeout=0)
    wire.clog(5)
    client.connect_ex((RIGHT, PORT))
    wire.clog(5)
    become_connected(client)
    return client


def steer(wire: Wire, cpus: str) -> None:
    for side in (wire.left, wire.right):
        side.steer_packets("veth", cpus)
        side.steer_packets("lo", cpus)


@STEERING
def test_the_handshake_races_the_first_writes(wire: Wire, path: Path_, cpus: str) -> None:
    """The ACK that makes the server ESTABLISHED waits on the wire while the client writes already."""
    wire.shape("8mbit")
    steer(wire, cpus)
    data = random.Random(1).randbytes(60_000)
    reordered = []
    with listen(path.place(wire.right), RIGHT) as listener:
        for dummy in range(SHAPED_CONNECTIONS):
            client = connect_ahead_of_the_server(wire, path.place(wire.left))
            client.sendall(data[:20_000])
            server, dummy = listener.accept()
            with client, server:
                server.settimeout(20)
                client.sendall(data[20_000:20_100])
                client.sendall(data[20_100:])
                client.shutdown(socket.SHUT_WR)
                received = receive_all(server)
                if received != data:
                    reordered.append(difference(received, data))
    assert reordered == []


@STEERING
def test_the_server_speaks_first(wire: Wire, path: Path_, cpus: str) -> None:
    """A greeting from the server, a request from the client sent before and after it."""
    wire.shape("8mbit")
    steer(wire, cpus)
    data = random.Random(2).randbytes(50_000)
    with listen(path.place(wire.right), RIGHT) as listener:
        for dummy in range(SHAPED_CONNECTIONS):
            client = connect_ahead_of_the_server(wire, path.place(wire.left))
            client.sendall(data[:10])
            server, dummy = listener.accept()
            with client, server:
                server.settimeout(20)
                server.sendall(data)
                assert receive(client, len(data)) == data
                client.sendall(data[10:])
                received = receive(server, len(data))
                assert received == data, difference(received, data)


def test_deferred_accept(wire: Wire, path: Path_) -> None:
    """With TCP_DEFER_ACCEPT the first data makes the server's socket: it is always ahead of the map."""
    data = random.Random(3).randbytes(30_000)
    with listen(path.place(wire.right), RIGHT) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        for dummy in range(SHAPED_CONNECTIONS):
            client = path.place(wire.left).socket()
            client.connect((RIGHT, PORT))
            client.sendall(data[:1000])
            client.sendall(data[1000:2000])
            server, dummy = listener.accept()
            with client, server:
                server.settimeout(20)
                client.sendall(data[2000:])
                received = receive(server, len(data))
                assert received == data, difference(received, data)
                server.sendall(data)
                received = receive(client, len(data))
                assert received == data, difference(received, data)


def test_deferred_accept_on_loopback(host: Namespace, path: Path_) -> None:
    data = random.Random(3).randbytes(3_000)
    place = path.place(host)
    with listen(place, "127.0.0.1") as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        for dummy in range(SHAPED_CONNECTIONS):
            with place.socket() as client:
                client.connect(("127.0.0.1", PORT))
                for at in range(0, 3000, 1000):
                    client.sendall(data[at : at + 1000])
                server, dummy = listener.accept()
                with server:
                    received = receive(server, len(data))
                    assert received == data, difference(received, data)


def test_simultaneous_open(wire: Wire, path: Path_) -> None:
    """Both ends connect and nobody listens: the two SYN cross on the shaped wire."""
    wire.shape("8mbit")
    data = random.Random(4).randbytes(20_000)
    for number in range(5):
        one, two = path.place(wire.left).socket(timeout=0), path.place(wire.right).socket(timeout=0)
        with one, two:
            one.bind(("10.77.0.1", 7100 + number))
            two.bind((RIGHT, 7200 + number))
            wire.clog(8)
            one.connect_ex((RIGHT, 7200 + number))
            two.connect_ex(("10.77.0.1", 7100 + number))
            become_connected(two)
            become_connected(one)
            for sender, receiver in ((one, two), (two, one)):
                for at in range(0, len(data), 4000):
                    sender.sendall(data[at : at + 4000])
                received = receive(receiver, len(data))
                assert received == data, difference(received, data)


def test_a_writer_that_sends_since_before_the_connection(wire: Wire, path: Path_) -> None:
    """send() on a connecting socket waits inside plain TCP; what the program sees first is the second message."""
    wire.shape("8mbit")
    data = random.Random(9).randbytes(60_000)
    with listen(path.place(wire.right), RIGHT) as listener:
        for dummy in range(SHAPED_CONNECTIONS):
            client = path.place(wire.left).socket(timeout=0)
            wire.clog(5)
            client.connect_ex((RIGHT, PORT))
            client.setblocking(True)
            client.sendall(data[:20_000])
            server, dummy = listener.accept()
            with client, server:
                server.settimeout(20)
                client.sendall(data[20_000:20_100])
                client.sendall(data[20_100:])
                received = receive(server, len(data))
                assert received == data, difference(received, data)


def test_a_reader_that_waits_since_before_the_connection(wire: Wire, path: Path_) -> None:
    """A thread blocked in recv() while another connects entered the kernel as a plain TCP reader."""
    wire.shape("8mbit")
    with listen(path.place(wire.right), RIGHT) as listener:
        client = path.place(wire.left).socket(timeout=0)
        wire.clog(30)
        client.connect_ex((RIGHT, PORT))
        client.setblocking(True)
        heard: list[bytes] = []
        reader = threading.Thread(target=lambda: heard.append(client.recv(100)), daemon=True)
        reader.start()
        server, dummy = listener.accept()
        with server, client:
            time.sleep(0.1)
            server.sendall(b"hello")
            reader.join(15)
            stuck = reader.is_alive()
            client.shutdown(socket.SHUT_RDWR)
            reader.join(15)
    assert not stuck
    assert heard == [b"hello"]


def many_ports(namespace: Namespace) -> None:
    namespace.sysctl("net.ipv4.ip_local_port_range", "10000 65000")
    namespace.sysctl("net.ipv4.tcp_tw_reuse", 1)


@STEERING
def test_short_connections_on_loopback(
    host: Namespace, plane: Accelerator, path: Path_, peer: Path, cpus: str
) -> None:
    """20,000 connections of three writes each way: none out of order, none broken, the map empty afterwards."""
    many_ports(host)
    host.steer_packets("lo", cpus)
    churn(peer, path.place(host), path.place(host), "127.0.0.1", 20_000)
    assert plane.is_empty(5)


@STEERING
def test_short_connections_between_namespaces(
    wire: Wire, plane: Accelerator, path: Path_, peer: Path, cpus: str
) -> None:
    many_ports(wire.left)
    steer(wire, cpus)
    churn(peer, path.place(wire.left), path.place(wire.right), RIGHT, 5_000)
    assert plane.is_empty(5)


@pytest.mark.parametrize("reader_blocks", [True, False], ids=["blocking", "non-blocking"])
@pytest.mark.parametrize("pause_ms", [0, 60])
def test_each_of_several_writers_keeps_its_order(
    host: Namespace, path: Path_, peer: Path, pause_ms: int, reader_blocks: bool
) -> None:
    """Four threads write to one socket at once; each one's bytes arrive in its order.

    A small send buffer lets a thread sleep in the middle of its message while the others go on; a reader that pauses
    and then takes everything lets the data plane change its mind just then.
    """
    place = path.place(host)
    for seed in range(4):
        with connection(place, place) as made:
            ends = [made.client, made.server]
            if pause_ms:
                made.client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            words = [str(peer), "threads", "40", *(str(end.fileno()) for end in ends)]
            made.client.setblocking(True)
            made.server.setblocking(reader_blocks)
            done = subprocess.run(
                [*words, str(seed), str(2 << 20), str(pause_ms)],
                pass_fds=[end.fileno() for end in ends],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
