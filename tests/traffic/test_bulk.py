# SPDX-License-Identifier: GPL-3.0-or-later
"""A gibibyte each way at once; the sums agree."""

from __future__ import annotations

import hashlib
import random
import socket
import threading

import pytest
from lab import Namespace, Wire
from traffic import Connection, Path_, connection

GIBIBYTE = 1 << 30
BLOCK = 16 << 20


def blocks(seed: int, length: int = GIBIBYTE) -> list[memoryview]:
    """Blocks of random bytes, each stamped with its number every 64 KiB."""
    block = bytearray(random.Random(seed).randbytes(BLOCK))
    made = []
    for number in range(length // BLOCK):
        for at in range(0, BLOCK, 65_536):
            block[at : at + 4] = number.to_bytes(4, "big")
        made.append(memoryview(bytes(block)))
    return made


def send(target: socket.socket, content: list[memoryview], sums: dict[str, str], name: str) -> None:
    digest = hashlib.sha256()
    for block in content:
        target.sendall(block)
        digest.update(block)
    target.shutdown(socket.SHUT_WR)
    sums[name] = digest.hexdigest()


def read(source: socket.socket, sums: dict[str, str], name: str) -> None:
    digest = hashlib.sha256()
    buffer = bytearray(1 << 18)
    length = 0
    while True:
        taken = source.recv_into(buffer)
        if taken == 0:
            break
        digest.update(memoryview(buffer)[:taken])
        length += taken
    sums[name] = digest.hexdigest()
    sums[name + " bytes"] = str(length)


def move_both_ways(
    made: Connection, there: list[memoryview], back: list[memoryview]
) -> dict[str, str]:
    sums: dict[str, str] = {}
    threads = [
        threading.Thread(target=send, args=(made.client, there, sums, "there, sent")),
        threading.Thread(target=send, args=(made.server, back, sums, "back, sent")),
        threading.Thread(target=read, args=(made.server, sums, "there, read")),
        threading.Thread(target=read, args=(made.client, sums, "back, read")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return sums


@pytest.fixture(scope="module")
def content() -> tuple[list[memoryview], list[memoryview]]:
    return blocks(1), blocks(2)


def check(made: Connection, content: tuple[list[memoryview], list[memoryview]]) -> None:
    sums = move_both_ways(made, *content)
    assert sums["there, read bytes"] == sums["back, read bytes"] == str(GIBIBYTE)
    assert sums["there, read"] == sums["there, sent"]
    assert sums["back, read"] == sums["back, sent"]


def test_on_loopback(host: Namespace, path: Path_, content: tuple) -> None:
    place = path.place(host)
    with connection(place, place) as made:
        check(made, content)


def test_between_namespaces(wire: Wire, path: Path_, content: tuple) -> None:
    with connection(path.place(wire.left), path.place(wire.right), "10.77.0.2") as made:
        check(made, content)
