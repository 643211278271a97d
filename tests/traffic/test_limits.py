# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel does not do for a socket in a sockmap: the documented limits, each with its way out.

Each test says what plain TCP does and what an accelerated connection may do at worst; no limit may lose or move a byte.
The way out is the same for all of them: leave the service's port out of the policy.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from lab import Namespace, Place
from traffic import Connection, connection, receive

EXCLUDED_PORT, ACCELERATED_PORT = 6000, 7000
SPLICE_F_NONBLOCK = 2  # linux/splice.h


@pytest.fixture(params=["plain", "excluded", "accelerated"])
def pair(request: pytest.FixtureRequest, host: Namespace) -> Iterator[tuple[Connection, bool]]:
    """A connection and whether it is accelerated; an excluded port behaves as plain TCP does."""
    accelerated = request.param == "accelerated"
    place: Place = host.outside if request.param == "plain" else host.inside
    port = EXCLUDED_PORT if request.param == "excluded" else ACCELERATED_PORT
    with connection(place, place, port=port) as made:
        for sender, receiver in made.ends():
            sender.sendall(b"hello")
            assert receive(receiver, 5) == b"hello"
        yield made, accelerated


def test_splice(pair: tuple[Connection, bool]) -> None:
    """splice() from the socket works or says EAGAIN; the data can be read then, and is whole.

    On a blocking socket it waits for bytes that come through TCP, which may be for ever.
    """
    made, accelerated = pair
    made.client.sendall(b"to be spliced")
    time.sleep(0.02)
    made.server.setblocking(False)
    out, into = os.pipe()
    try:
        moved = os.splice(made.server.fileno(), into, 100, flags=SPLICE_F_NONBLOCK)
        assert os.read(out, 100) == b"to be spliced"[:moved]
    except BlockingIOError:
        assert accelerated, "plain TCP splices"
        moved = 0
    finally:
        os.close(out)
        os.close(into)
    made.server.settimeout(5)
    rest = len(b"to be spliced") - moved
    assert receive(made.server, rest) == b"to be spliced"[moved:]


def test_wait_for_all(pair: tuple[Connection, bool]) -> None:
    """MSG_WAITALL may return what is there; a second call gets the rest."""
    made, accelerated = pair
    made.server.setblocking(True)
    made.client.sendall(b"first ")
    threading.Timer(0.1, made.client.sendall, (b"second",)).start()
    heard = made.server.recv(12, socket.MSG_WAITALL)
    if not accelerated:
        assert heard == b"first second"
    assert heard + receive(made.server, 12 - len(heard)) == b"first second"


def test_a_low_water_mark(pair: tuple[Connection, bool]) -> None:
    """SO_RCVLOWAT may be ignored: a reader wakes earlier than it asked to."""
    made, accelerated = pair
    made.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 10)
    made.server.setblocking(True)
    made.client.sendall(b"12345")
    # as many again as the mark: plain TCP counts only what it has not handed out yet
    threading.Timer(0.1, made.client.sendall, (b"67890abcde",)).start()
    heard = made.server.recv(100)
    if not accelerated:
        assert len(heard) >= 10
    made.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    assert heard + receive(made.server, 15 - len(heard)) == b"1234567890abcde"


def test_urgent_data(pair: tuple[Connection, bool]) -> None:
    """Out-of-band data may arrive inline, in its place; on plain TCP it is out of the stream."""
    made, accelerated = pair
    made.client.sendall(b"before")
    made.client.send(b"!", socket.MSG_OOB)
    made.client.sendall(b"after")
    made.client.shutdown(socket.SHUT_WR)
    time.sleep(0.05)
    heard = b""
    while part := made.server.recv(100):
        heard += part
    assert heard in ((b"before!after", b"beforeafter") if accelerated else (b"beforeafter",))


def test_two_threads_read_one_socket(pair: tuple[Connection, bool]) -> None:
    """Two blocked readers are both woken by one message; the loser may get EAGAIN. Each byte is read once."""
    made, accelerated = pair
    made.server.setblocking(True)
    parts: list[bytes] = []
    interrupted: list[int] = []

    def read() -> None:
        while True:
            try:
                part = made.server.recv(1000)
            except BlockingIOError:
                interrupted.append(1)
                continue
            if not part:
                return
            parts.append(part)

    readers = [threading.Thread(target=read) for dummy in range(2)]
    for reader in readers:
        reader.start()
    for number in range(300):
        made.client.sendall(number.to_bytes(2, "big") * 250)
        time.sleep(0.0002)
    made.client.shutdown(socket.SHUT_WR)
    for reader in readers:
        reader.join(10)
    assert not any(reader.is_alive() for reader in readers)
    expected = b"".join(number.to_bytes(2, "big") * 250 for number in range(300))
    assert sorted(b"".join(parts)) == sorted(expected)
    assert accelerated or not interrupted


def test_a_reader_and_another_thread_that_shuts_down(pair: tuple[Connection, bool]) -> None:
    """shutdown(SHUT_WR) in one thread wakes another one's blocked recv(), which may return EAGAIN; no byte is lost."""
    made, accelerated = pair
    made.client.setblocking(True)
    heard: list[bytes | str] = []

    def read() -> None:
        while True:
            try:
                part = made.client.recv(100)
            except BlockingIOError:
                heard.append("EAGAIN")
                continue
            if not part:
                return
            heard.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    made.client.shutdown(socket.SHUT_WR)
    assert made.server.recv(1) == b""
    made.server.sendall(b"answer")
    made.server.close()
    reader.join(5)
    assert [part for part in heard if part != "EAGAIN"] == [b"answer"]
    assert accelerated or "EAGAIN" not in heard


def test_the_reader_closes_with_data_unread(pair: tuple[Connection, bool]) -> None:
    """Plain TCP resets such a connection; an accelerated one may end as if all had been read."""
    made, accelerated = pair
    made.client.sendall(b"never read")
    time.sleep(0.02)
    made.server.close()
    time.sleep(0.02)
    try:
        end = made.client.recv(1)
    except ConnectionResetError:
        return
    assert accelerated
    assert end == b""


def test_zero_copy_notifications(pair: tuple[Connection, bool]) -> None:
    """MSG_ZEROCOPY sends the right bytes; the notification that the buffer is free may never come."""
    made, accelerated = pair
    made.client.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    made.client.send(b"z" * 5000, 0x4000000)  # MSG_ZEROCOPY
    assert receive(made.server, 5000) == b"z" * 5000
    made.client.setblocking(False)
    time.sleep(0.3)  # the buffer is free once the bytes are acknowledged
    try:
        _data, ancillary, flags, _address = made.client.recvmsg(100, 200, socket.MSG_ERRQUEUE)
        assert ancillary
        assert flags & socket.MSG_ERRQUEUE
    except BlockingIOError:
        assert accelerated, "plain TCP notifies"


def test_what_tcp_info_does_not_see(pair: tuple[Connection, bool]) -> None:
    """ss and TCP_INFO count segments; redirected bytes are in none."""
    made, accelerated = pair
    for dummy in range(5):
        made.client.sendall(bytes(1000))
        receive(made.server, 1000)
    information = made.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    acknowledged = int.from_bytes(information[120:128], "little")  # tcpi_bytes_acked
    assert acknowledged < 1000 if accelerated else acknowledged >= 5000
