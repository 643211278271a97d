# SPDX-License-Identifier: GPL-3.0-or-later
"""System calls that look at a socket in other ways than read and write do what they do on plain TCP."""

from __future__ import annotations

import array
import fcntl
import os
import random
import select
import socket
import tempfile
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from lab import Namespace
from traffic import Connection, Path_, connection, difference, receive, receive_all

SO_ZEROCOPY, MSG_ZEROCOPY, MSG_ERRQUEUE = 60, 0x4000000, 0x2000  # linux/socket.h


@pytest.fixture
def pair(host: Namespace, path: Path_) -> Iterator[Connection]:
    place = path.place(host)
    with connection(place, place) as made:
        made.client.sendall(b"first")
        assert receive(made.server, 5) == b"first"
        yield made


def waiting(reader: socket.socket) -> int:
    answer = array.array("i", [-1])
    fcntl.ioctl(reader, termios.FIONREAD, answer)
    return answer[0]


def test_sendfile(pair: Connection) -> None:
    data = random.Random(5).randbytes(3 << 20)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        sending = threading.Thread(target=pair.client.sendfile, args=(file,))
        sending.start()
        received = receive(pair.server, len(data))
        sending.join()
    assert received == data, difference(received, data)


def test_peek(pair: Connection) -> None:
    pair.client.sendall(b"hello")
    assert pair.server.recv(5, socket.MSG_PEEK) == b"hello"
    assert pair.server.recv(2, socket.MSG_PEEK) == b"he"
    pair.client.sendall(b"world")
    assert pair.server.recv(2) == b"he"
    assert pair.server.recv(100, socket.MSG_PEEK)[:3] == b"llo"
    assert receive(pair.server, 8) == b"lloworld"


def test_the_number_of_bytes_waiting(pair: Connection) -> None:
    assert waiting(pair.server) == 0
    pair.client.sendall(b"x" * 1234)
    assert waiting(pair.server) == 1234
    pair.client.sendall(b"x" * 766)
    assert waiting(pair.server) == 2000
    receive(pair.server, 500)
    assert waiting(pair.server) == 1500


def test_poll(pair: Connection) -> None:
    poller = select.poll()
    poller.register(pair.server, select.POLLIN | select.POLLRDHUP)
    assert poller.poll(0) == []
    threading.Timer(0.1, pair.client.sendall, (b"now",)).start()
    assert poller.poll(5000) == [(pair.server.fileno(), select.POLLIN)]
    assert receive(pair.server, 3) == b"now"
    assert poller.poll(0) == []
    pair.client.close()
    assert poller.poll(5000)[0][1] & select.POLLRDHUP


@pytest.mark.parametrize("edge", [0, select.EPOLLET], ids=["level", "edge"])
def test_epoll(pair: Connection, edge: int) -> None:
    """Every message of a hundred wakes the waiting reader, also when it waits for edges."""
    with select.epoll() as poller:
        poller.register(pair.server, select.EPOLLIN | edge)
        for number in range(100):
            message = b"message %d" % number
            later = threading.Timer(0.001, pair.client.sendall, (message,))
            later.start()
            assert poller.poll(5), f"no event for message {number}"
            assert receive(pair.server, len(message)) == message
            later.join()


def test_one_reader_polls_before_any_data(host: Namespace, path: Path_) -> None:
    """An event loop adds the accepted socket at once and hears about the first message."""
    place = path.place(host)
    with connection(place, place) as made, select.epoll() as poller:
        poller.register(made.server, select.EPOLLIN | select.EPOLLET)
        assert poller.poll(0) == []
        made.client.sendall(b"first")
        assert poller.poll(5) == [(made.server.fileno(), select.EPOLLIN)]


def test_select_with_a_blocked_reader(pair: Connection) -> None:
    heard: list[bytes] = []
    pair.server.setblocking(True)
    reader = threading.Thread(target=lambda: heard.append(pair.server.recv(100)))
    reader.start()
    time.sleep(0.1)
    pair.client.sendall(b"wake up")
    reader.join(5)
    assert heard == [b"wake up"]


def test_zero_copy_sends_the_right_bytes(pair: Connection) -> None:
    pair.client.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    data = random.Random(6).randbytes(1 << 20)
    sent = 0
    received = bytearray()
    while sent < len(data):
        sent += pair.client.send(data[sent : sent + 100_000], MSG_ZEROCOPY)
        received += receive(pair.server, sent - len(received))
    assert bytes(received) == data, difference(bytes(received), data)


def test_a_receive_timeout_is_kept(pair: Connection) -> None:
    pair.server.setblocking(True)
    timeval = (0).to_bytes(8, "little") + (200_000).to_bytes(8, "little")
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    before = time.monotonic()
    with pytest.raises(BlockingIOError):
        pair.server.recv(1)
    assert 0.19 < time.monotonic() - before < 10


def test_corked_bytes_leave_in_order(pair: Connection) -> None:
    data = random.Random(7).randbytes(50_000)
    for at in range(0, len(data), 100):
        last = at + 100 == len(data)
        pair.client.send(data[at : at + 100], 0 if last else socket.MSG_MORE)
        if at % 10_000 == 0:
            pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, at // 10_000 % 2)
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    received = receive(pair.server, len(data))
    assert received == data, difference(received, data)


def test_urgent_data_inline(pair: Connection) -> None:
    """With SO_OOBINLINE the urgent byte is where it was sent, on either path."""
    pair.server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    pair.client.sendall(b"before")
    pair.client.send(b"!", socket.MSG_OOB)
    pair.client.sendall(b"after")
    pair.client.shutdown(socket.SHUT_WR)
    assert receive_all(pair.server) == b"before!after"


def test_a_child_process_goes_on_with_the_socket(pair: Connection) -> None:
    """The connection belongs to no process: a forked child sends, the parent's next bytes follow."""
    pair.client.sendall(b"parent ")
    child = os.fork()
    if child == 0:
        pair.client.sendall(b"child ")
        os._exit(0)
    os.waitpid(child, 0)
    pair.client.sendall(b"parent")
    assert receive(pair.server, 19) == b"parent child parent"
