# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections, what is sent over them, and the measuring of what the wire saw of it."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab import Namespace, Place

PORT = 7000
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
HANDSHAKE_AND_TEARDOWN = (
    4096  # what the wire may carry of an accelerated connection, counted on both sides
)


@dataclass(frozen=True)
class Path_:
    """Plain TCP (the control) or the accelerator: the same test runs on both."""

    accelerated: bool

    def place(self, namespace: Namespace) -> Place:
        return namespace.inside if self.accelerated else namespace.outside


def listen(place: Place, address: str, port: int = PORT, backlog: int = 512) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = place.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(backlog)
    return listener


@dataclass(frozen=True)
class Connection:
    client: socket.socket
    server: socket.socket

    def ends(self) -> tuple[tuple[socket.socket, socket.socket], ...]:
        return (self.client, self.server), (self.server, self.client)

    def close(self) -> None:
        self.client.close()
        self.server.close()


@contextmanager
def connection(
    client: Place, server: Place, address: str = "127.0.0.1", port: int = PORT
) -> Iterator[Connection]:
    """One connection. accept() has returned: both ends are ESTABLISHED and as accelerated as they will ever be."""
    with connections(1, client, server, address, port) as made:
        yield made[0]


@contextmanager
def connections(
    number: int, client: Place, server: Place, address: str = "127.0.0.1", port: int = PORT
) -> Iterator[list[Connection]]:
    made: list[Connection] = []
    listener = listen(server, address, port)
    try:
        for dummy in range(number):
            near = client.socket(listener.family)
            near.connect((address, port))
            far, _peer = listener.accept()
            far.settimeout(20)
            made.append(Connection(near, far))
        listener.close()
        yield made
    finally:
        listener.close()
        for each in made:
            each.close()


def receive(source: socket.socket, length: int) -> bytes:
    """Exactly so many bytes, or fewer when the stream ends before."""
    data = bytearray()
    while len(data) < length:
        part = source.recv(min(1 << 18, length - len(data)))
        if not part:
            break
        data += part
    return bytes(data)


def receive_all(source: socket.socket) -> bytes:
    return receive(source, 1 << 40)


def send_and_compare(sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
    """Sends while the other end reads; the bytes must be the same."""
    sending = threading.Thread(target=sender.sendall, args=(data,))
    sending.start()
    try:
        received = receive(receiver, len(data))
    finally:
        sending.join(30)
    assert received == data, difference(received, data)


def difference(received: bytes, expected: bytes) -> str:
    """Where two streams part, in words; the streams themselves are too long to print."""
    at = next((i for i, (a, b) in enumerate(zip(received, expected)) if a != b), -1)
    if at < 0:
        return f"{len(received)} of {len(expected)} bytes"
    where = expected.find(received[at : at + 64])
    return f"byte {at} is wrong, it is byte {where} of what was sent"


@contextmanager
def wire_bytes(namespace: Namespace, interface: str) -> Iterator[list[int]]:
    """What an interface carries meanwhile: a list that has one number afterwards."""
    before = namespace.interface_bytes(interface)
    seen: list[int] = []
    yield seen
    seen.append(namespace.interface_bytes(interface) - before)


def assert_path(path: Path_, seen: list[int], transferred: int) -> None:
    """The interface's own counter says whether the data took the stack or not."""
    if path.accelerated:
        assert seen[0] < HANDSHAKE_AND_TEARDOWN + transferred // 100, "the data took the stack"
    else:
        assert seen[0] >= transferred, "the control was accelerated"


def run_peer(
    binary: Path,
    command: str,
    *arguments: object,
    sockets: list[socket.socket],
    seconds: float = 60,
    blocking: bool = True,
) -> str:
    """Runs the C peer on our sockets; returns what it said. A failure shows its words."""
    for each in sockets:
        each.setblocking(blocking)
    words = [str(binary), command, *map(str, arguments)]
    done = subprocess.run(
        words,
        pass_fds=[each.fileno() for each in sockets],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"peer {command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def started_peer(words: list[str], sockets: list[socket.socket]) -> Iterator[subprocess.Popen[str]]:
    """A peer that runs until its standard input is closed."""
    for each in sockets:
        each.setblocking(True)
    process = subprocess.Popen(
        words,
        pass_fds=[each.fileno() for each in sockets],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def finish(process: subprocess.Popen[str], seconds: float = 30) -> str:
    """Tells a peer to stop; returns its last words. It must be content."""
    said, dummy = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def churn(
    peer: Path, client: Place, server: Place, address: str, connections: int, threads: int = 4
) -> None:
    """Short connections, each checked byte by byte on both ends."""
    with listen(server, address, backlog=4096) as listener:
        listener.setblocking(True)
        words = [str(peer), "churn-server", str(listener.fileno()), "16"]
        with started_peer(words, [listener]) as serving:
            arguments = ["churn-client", address, str(PORT), str(connections), str(threads)]
            said = client.run(str(peer), *arguments)
            assert f"asked {connections} wrong 0 broken 0" in said
            assert f"served {connections} wrong 0 broken 0" in finish(serving)
