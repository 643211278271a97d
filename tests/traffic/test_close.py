# SPDX-License-Identifier: GPL-3.0-or-later
"""Ends of connections: what was sent before is read, and both ends learn that it is over."""

from __future__ import annotations

import ctypes
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from dataplane import Accelerator
from lab import Namespace, Wire
from traffic import (
    PORT,
    Connection,
    Path_,
    connection,
    difference,
    listen,
    receive,
    receive_all,
)

DATA = random.Random(8).randbytes(100_000)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger


def greet(made: Connection) -> None:
    """Both directions have carried a message."""
    for sender, receiver in made.ends():
        sender.sendall(b"hello")
        assert receive(receiver, 5) == b"hello"


def greeted(host: Namespace, path: Path_) -> Iterator[Connection]:
    """Twenty connections one after the other, each closed before the next one begins."""
    place = path.place(host)
    for dummy in range(20):
        with connection(place, place) as made:
            greet(made)
            yield made


def expect(received: bytes, expected: bytes = DATA) -> None:
    assert received == expected, difference(received, expected)


def test_close_with_data_unread(host: Namespace, path: Path_) -> None:
    """The sender is gone before the reader begins."""
    for made in greeted(host, path):
        made.server.sendall(DATA)
        made.server.close()
        time.sleep(0.01)
        expect(receive_all(made.client))


def test_half_close_with_data_unread(host: Namespace, path: Path_) -> None:
    """The reader closed its direction, the sender all of it: the socket is in TIME_WAIT when it is read."""
    for made in greeted(host, path):
        made.client.sendall(b"request")
        made.client.shutdown(socket.SHUT_WR)
        assert receive_all(made.server) == b"request"
        made.server.sendall(DATA)
        made.server.close()
        time.sleep(0.01)
        expect(receive_all(made.client))


def test_shutdown_after_the_other_end_closed(host: Namespace, path: Path_) -> None:
    """LAST_ACK passes to CLOSED while the data is still unread."""
    for made in greeted(host, path):
        made.server.sendall(DATA)
        made.server.close()
        time.sleep(0.005)
        made.client.shutdown(socket.SHUT_WR)
        time.sleep(0.01)
        expect(receive_all(made.client))


def test_reset_with_data_unread(host: Namespace, path: Path_) -> None:
    """What arrived before the reset is read, then comes ECONNRESET."""
    for made in greeted(host, path):
        made.server.sendall(DATA)
        made.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        made.server.close()
        time.sleep(0.01)
        expect(receive(made.client, len(DATA)))
        with pytest.raises(ConnectionResetError):
            made.client.recv(1)


def test_the_writer_learns_that_the_reader_is_gone(host: Namespace, path: Path_) -> None:
    """The other end closed with data unread: writing fails soon, whatever the first error is called."""
    for made in greeted(host, path):
        made.client.sendall(DATA)
        made.server.close()
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for dummy in range(200):
                made.client.sendall(b"anybody there?")
                time.sleep(0.001)


def test_a_writer_that_is_blocked_learns_that_the_reader_is_gone(
    host: Namespace, path: Path_
) -> None:
    place = path.place(host)
    with connection(place, place) as made:
        greet(made)
        failures: list[OSError] = []

        def write_for_ever() -> None:
            try:
                while True:
                    made.client.sendall(bytes(100_000))
            except OSError as error:
                failures.append(error)

        made.client.setblocking(True)
        writer = threading.Thread(target=write_for_ever, daemon=True)
        writer.start()
        time.sleep(0.5)
        made.server.close()
        writer.join(10)
        assert failures


def test_writing_after_shutdown_fails(host: Namespace, path: Path_) -> None:
    place = path.place(host)
    with connection(place, place) as made:
        greet(made)
        made.client.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            made.client.sendall(b"too late")
        made.server.sendall(b"still heard")
        assert receive(made.client, 11) == b"still heard"


def half_close_then_read(wire_or_host_place: tuple, address: str, rounds: int, delay: float) -> int:
    """Request, half-close, blocking read of the response. Returns how often the read was interrupted."""
    client_place, server_place = wire_or_host_place
    interrupted = 0
    with listen(server_place, address) as listener:

        def serve() -> None:
            for dummy in range(rounds):
                server, _address = listener.accept()
                with server:
                    server.setblocking(True)
                    request = receive_all(server)
                    time.sleep(delay)
                    server.sendall(request * 100)

        serving = threading.Thread(target=serve)
        serving.start()
        for dummy in range(rounds):
            with client_place.socket(listener.family, timeout=None) as client:
                client.connect((address, PORT))
                client.sendall(b"request")
                client.shutdown(socket.SHUT_WR)
                try:
                    assert receive_all(client) == b"request" * 100
                except BlockingIOError:
                    interrupted += 1
        serving.join(20)
    return interrupted


@pytest.mark.parametrize("cpus", ["0", "3"], ids=["rps-off", "rps-on"])
def test_half_close_then_read(host: Namespace, path: Path_, cpus: str) -> None:
    """The ACK of the FIN wakes the reader; a blocking read must not return EAGAIN for it."""
    place = path.place(host)
    host.steer_packets("lo", cpus)
    assert half_close_then_read((place, place), "127.0.0.1", 1500, 0.0003) == 0


def test_half_close_then_read_over_a_slow_wire(wire: Wire, path: Path_) -> None:
    """Here the ACK of the FIN always comes after the reader has gone to sleep."""
    wire.shape("8mbit")
    places = path.place(wire.left), path.place(wire.right)
    assert half_close_then_read(places, "10.77.0.2", 30, 0.02) == 0


def test_every_socket_leaves_the_map(host: Namespace, plane: Accelerator, path: Path_) -> None:
    """Whatever way a connection ends, its two entries go."""
    place = path.place(host)
    for ending in ("close", "half", "reset", "unread"):
        with connection(place, place) as made:
            greet(made)
            if ending == "half":
                made.client.shutdown(socket.SHUT_WR)
            if ending == "reset":
                made.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            if ending == "unread":
                made.client.sendall(DATA)
    assert plane.is_empty(5)


def disconnect(connected: socket.socket) -> None:
    """connect(AF_UNSPEC): the socket is as new, and may connect again."""
    unspecified = ctypes.create_string_buffer(16)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(connected.fileno(), unspecified, 16):
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")


def test_a_socket_that_is_disconnected_and_connected_again(host: Namespace, path: Path_) -> None:
    """The second connection of a socket begins clean: nothing unread or decided of the first one is in it."""
    place = path.place(host)
    with listen(place, "127.0.0.1") as listener, place.socket() as client:
        for number in range(20):
            client.connect(("127.0.0.1", PORT))
            server, dummy = listener.accept()
            with server:
                server.settimeout(20)
                greet(Connection(client, server))
                server.sendall(b"never read in connection %d" % number)
                client.sendall(DATA)
                expect(receive(server, len(DATA)))
                disconnect(client)
