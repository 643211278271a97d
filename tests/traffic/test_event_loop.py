# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers as event loops are: edge-triggered epoll, FIONREAD to know when to stop, a small buffer, as nginx does it.

Such a reader hears of new bytes once. If FIONREAD then does not show them, it waits for the next edge, which never
comes when these were the last. So each way a connection changes between redirection and TCP is tried on it.
"""

from __future__ import annotations

import array
import fcntl
import hashlib
import random
import select
import socket
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from dataplane import Accelerator
from lab import Namespace, Wire
from traffic import PORT, Path_, connection, listen

STALL = 15.0  # seconds without an edge while bytes are missing
BODY = 16 << 20
BUFFERS = pytest.mark.parametrize("buffer", [4096, 65_536])


class EdgeReader:
    """One socket in an event loop; what has been learnt from the kernel is all it knows."""

    def __init__(self, source: socket.socket, buffer: int) -> None:
        self.source = source
        self.buffer = buffer
        self.available = 0  # -1: unknown, an edge has come
        self.poller = select.epoll()
        source.setblocking(False)
        self.poller.register(source, select.EPOLLIN | select.EPOLLET | select.EPOLLRDHUP)

    def waiting(self) -> int:
        answer = array.array("i", [-1])
        fcntl.ioctl(self.source, termios.FIONREAD, answer)
        return answer[0]

    def read_some(self) -> bytes:
        """What one call returns; b"" when the next edge has to be waited for."""
        try:
            part = self.source.recv(self.buffer)
        except BlockingIOError:
            self.available = 0
            return b""
        if not part:
            raise EOFError
        if self.available > 0:
            self.available = max(0, self.available - len(part))
        elif len(part) == self.buffer:
            self.available = self.waiting()
        if len(part) < self.buffer:
            self.available = 0
        return part

    def read(self, length: int, pause: float = 0.0) -> str:
        """Exactly so many bytes; their SHA-256. A stall is a failure."""
        digest = hashlib.sha256()
        missing = length
        while missing:
            if self.available == 0:
                assert self.poller.poll(STALL), (
                    f"no edge for {STALL} s, {missing} bytes are missing"
                )
                self.available = -1
            part = self.read_some()
            digest.update(part)
            missing -= len(part)
            if pause and random.random() < 0.01:
                time.sleep(pause)
        return digest.hexdigest()


def body(number: int, length: int) -> bytes:
    return random.Random(number).randbytes(length)


@contextmanager
def writing(target: socket.socket, data: bytes) -> Iterator[None]:
    """A writer in another thread, as another process would be."""
    target.settimeout(30)
    thread = threading.Thread(target=target.sendall, args=(data,), daemon=True)
    thread.start()
    yield
    thread.join(30)
    assert not thread.is_alive()


def transfer(
    sender: socket.socket, reader: EdgeReader, data: bytes, delay: float, pause: float
) -> None:
    with writing(sender, data):
        time.sleep(delay)
        assert reader.read(len(data), pause) == hashlib.sha256(data).hexdigest()


@BUFFERS
def test_edge_triggered_reader_behind_a_backlog(host: Namespace, path: Path_, buffer: int) -> None:
    """The reader comes late and pauses: the writer falls back to TCP with redirected bytes still unread."""
    place = path.place(host)
    data = body(1, BODY)
    with connection(place, place) as made:
        reader = EdgeReader(made.client, buffer)
        for pause in (0.0, 0.01):
            transfer(made.server, reader, data, 0.2, pause)


@BUFFERS
def test_edge_triggered_reader_of_many_answers(host: Namespace, path: Path_, buffer: int) -> None:
    """Keep-alive: requests and answers of all sizes in turn, backlogs among them."""
    place = path.place(host)
    sizes = random.Random(2)
    with connection(place, place) as made:
        client, server = EdgeReader(made.client, buffer), EdgeReader(made.server, buffer)
        for number in range(60):
            request = body(number, sizes.choice([1, 100, buffer, 3 * buffer]))
            answer = body(
                number, sizes.choice([1, 500, buffer - 1, buffer, buffer + 1, 200_000, 5 << 20])
            )
            transfer(made.client, server, request, 0, 0)
            transfer(made.server, client, answer, 0.05 if number % 10 == 0 else 0, 0)


@BUFFERS
def test_edge_triggered_readers_while_draining(
    plane: Accelerator, host: Namespace, path: Path_, buffer: int
) -> None:
    """Keep-alive traffic goes on while the connection is moved to TCP; then the map is empty."""
    place = path.place(host)
    with connection(place, place) as made:
        client, server = EdgeReader(made.client, buffer), EdgeReader(made.server, buffer)
        for number in range(120):
            if number == 40:
                plane.set("draining", 1)
            transfer(made.client, server, body(number, 700), 0, 0)
            transfer(made.server, client, body(number, 2 * buffer + number * 1000), 0, 0)
        assert plane.is_empty(5)


def test_edge_triggered_reader_drained_behind_a_backlog(
    plane: Accelerator, host: Namespace, path: Path_
) -> None:
    """Draining begins while megabytes are queued; the last bytes come over TCP and nothing follows them."""
    place = path.place(host)
    data = body(3, BODY)
    with connection(place, place) as made:
        reader = EdgeReader(made.client, 16_384)
        with writing(made.server, data):
            time.sleep(0.1)
            plane.set("draining", 1)
            time.sleep(0.1)
            assert reader.read(len(data)) == hashlib.sha256(data).hexdigest()
        transfer(made.client, EdgeReader(made.server, 16_384), b"thanks", 0, 0)
        transfer(made.server, reader, b"bye", 0, 0)
        assert plane.is_empty(10)


@pytest.mark.parametrize("last", [1, 300_000])
def test_edge_triggered_reader_and_a_last_message(host: Namespace, path: Path_, last: int) -> None:
    """Redirected bytes wait, the last message goes to TCP behind them, and the writer says nothing more."""
    place = path.place(host)
    with connection(place, place) as made:
        reader = EdgeReader(made.client, 4096)
        made.server.setblocking(False)
        data = body(4, 8 << 20)
        sent = 0
        with suppress(BlockingIOError):
            while sent < len(data):
                sent += made.server.send(data[sent : sent + 65_536])
        tail = body(5, last)
        expected = hashlib.sha256(data[:sent] + tail).hexdigest()
        with writing(made.server, tail):
            time.sleep(0.05)
            assert reader.read(sent + last) == expected


def test_edge_triggered_reader_after_a_race(wire: Wire, path: Path_) -> None:
    """The first bytes come over TCP, because the handshake was late; the reader must see them and all that follow."""
    wire.shape("8mbit")
    for number in range(10):
        with listen(path.place(wire.right), "10.77.0.2") as listener:
            client = path.place(wire.left).socket(timeout=0)
            wire.clog(5)
            client.connect_ex(("10.77.0.2", PORT))
            wire.clog(5)
            select.select([], [client], [], 5)
            client.settimeout(20)
            data = body(number, 30_000)
            client.sendall(data[:9000])
            server, dummy = listener.accept()
            with client, server:
                reader = EdgeReader(server, 4096)
                client.sendall(data[9000:9100])
                time.sleep(0.02)
                client.sendall(data[9100:])
                assert reader.read(len(data)) == hashlib.sha256(data).hexdigest()
                back = EdgeReader(client, 4096)
                transfer(server, back, data, 0, 0)


def test_level_triggered_reader_that_asks_first(host: Namespace, path: Path_) -> None:
    """poll, FIONREAD, then exactly so many bytes: readable must mean that FIONREAD is not 0."""
    place = path.place(host)
    data = body(6, BODY)
    with connection(place, place) as made, writing(made.server, data):
        time.sleep(0.2)
        made.client.setblocking(False)
        received = hashlib.sha256()
        missing = len(data)
        silent_since = None
        while missing:
            assert select.select([made.client], [], [], STALL)[0], f"{missing} bytes are missing"
            answer = array.array("i", [-1])
            fcntl.ioctl(made.client, termios.FIONREAD, answer)
            if answer[0] == 0:
                silent_since = silent_since or time.monotonic()
                assert time.monotonic() - silent_since < STALL, "readable, and FIONREAD says 0"
                time.sleep(0.001)
                continue
            silent_since = None
            part = made.client.recv(answer[0])
            received.update(part)
            missing -= len(part)
        assert received.hexdigest() == hashlib.sha256(data).hexdigest()
