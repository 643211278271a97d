# SPDX-License-Identifier: GPL-3.0-or-later
"""A reader that does not read stops its writer, as on plain TCP, and nothing is lost when it reads again."""

from __future__ import annotations

import hashlib
import random
import socket
import time

import pytest
from lab import Namespace, Place, Wire
from traffic import Connection, connection, connections

MOST = 64 << 20  # what an unbounded data plane would swallow
ALLOWANCE = 4 << 20
RECEIVE_LIMIT, SEND_LIMIT = 6291456, 4194304
IPV4_WIRE = "10.77.0.2"


def swallow(writer: socket.socket, size: int) -> tuple[int, str]:
    """Writes until nothing is accepted for a while; returns how much was, and its SHA-256."""
    block = random.Random(size).randbytes(1 << 20)
    digest = hashlib.sha256()
    writer.setblocking(False)
    accepted, idle = 0, 0
    while accepted < MOST and idle < 50:
        at = accepted % (1 << 20)
        try:
            taken = writer.send(block[at : at + size])
        except BlockingIOError:
            idle += 1
            time.sleep(0.01)
            continue
        digest.update(block[at : at + taken])
        accepted += taken
        idle = 0
    writer.settimeout(20)
    return accepted, digest.hexdigest()


def drain(reader: socket.socket, length: int) -> str:
    digest = hashlib.sha256()
    while length:
        part = reader.recv(min(length, 1 << 18))
        assert part, f"the stream ended, {length} bytes were still to come"
        digest.update(part)
        length -= len(part)
    return digest.hexdigest()


def fill_and_drain(made: Connection, size: int, warm: bool) -> list[int]:
    """What is accepted with nobody reading; then all of it is read, and the same again."""
    if warm:
        for sender, receiver in made.ends():
            sender.sendall(b"hello")
            assert receiver.recv(5) == b"hello"
    rounds = []
    for dummy in range(2):
        accepted, sent = swallow(made.client, size)
        assert drain(made.server, accepted) == sent
        rounds.append(accepted)
    made.client.sendall(b"goodbye")
    assert drain(made.server, 7) == hashlib.sha256(b"goodbye").hexdigest()
    return rounds


def measure(client: Place, server: Place, address: str, size: int, warm: bool = True) -> list[int]:
    with connection(client, server, address) as made:
        return fill_and_drain(made, size, warm)


def check(plain: list[int], accelerated: list[int]) -> None:
    """First what TCP itself accepts. After a quick read TCP lets the window grow, by luck up to its own limits."""
    assert accelerated[0] <= plain[0] + ALLOWANCE
    for later in accelerated[1:]:
        assert later <= max(RECEIVE_LIMIT + SEND_LIMIT, *plain) + ALLOWANCE


def usual_buffers(namespace: Namespace) -> None:
    """The kernel's own defaults, whatever this machine has."""
    namespace.sysctl("net.ipv4.tcp_rmem", f"4096 131072 {RECEIVE_LIMIT}")
    namespace.sysctl("net.ipv4.tcp_wmem", f"4096 16384 {SEND_LIMIT}")


@pytest.mark.parametrize("size", [100, 1024, 65_536, 1 << 20])
def test_on_loopback(host: Namespace, size: int) -> None:
    usual_buffers(host)
    plain = measure(host.outside, host.outside, "127.0.0.1", size)
    accelerated = measure(host.inside, host.inside, "127.0.0.1", size)
    check(plain, accelerated)


@pytest.mark.parametrize("size", [1024, 65_536])
def test_between_namespaces(wire: Wire, size: int) -> None:
    usual_buffers(wire.left)
    usual_buffers(wire.right)
    plain = measure(wire.left.outside, wire.right.outside, IPV4_WIRE, size)
    accelerated = measure(wire.left.inside, wire.right.inside, IPV4_WIRE, size)
    check(plain, accelerated)


def test_from_the_first_byte(host: Namespace) -> None:
    usual_buffers(host)
    plain = measure(host.outside, host.outside, "127.0.0.1", 65_536, warm=False)
    accelerated = measure(host.inside, host.inside, "127.0.0.1", 65_536, warm=False)
    check(plain, accelerated)


def test_both_ends_write_and_nobody_reads(host: Namespace) -> None:
    usual_buffers(host)
    for place in (host.outside, host.inside):
        with connection(place, place) as made:
            there, sent_there = swallow(made.client, 65_536)
            back, sent_back = swallow(made.server, 65_536)
            assert drain(made.server, there) == sent_there
            assert drain(made.client, back) == sent_back
            if place is host.outside:
                plain = there + back
    assert there + back <= plain + 2 * ALLOWANCE


def test_many_silent_readers(host: Namespace) -> None:
    """Fifty connections that nobody reads: the bound holds for each, the host's memory is not eaten."""
    usual_buffers(host)
    accepted = {}
    for place in (host.outside, host.inside):
        total = 0
        with connections(50, place, place) as many:
            for made in many:
                made.client.setblocking(False)
                block = bytes(65_536)
                taken = 0
                while taken < MOST:
                    try:
                        taken += made.client.send(block)
                    except BlockingIOError:
                        break
                total += taken
        accepted[place is host.inside] = total
    assert accepted[True] <= accepted[False] + 50 * ALLOWANCE
