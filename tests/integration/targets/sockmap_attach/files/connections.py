# SPDX-License-Identifier: GPL-3.0-or-later
"""Real TCP connections that outlive a task: a process in a control group, ordered about.

``connections.py start CGROUP CONTROL`` starts it; it ends on ``quit`` or after ten minutes.
``connections.py tell CONTROL ORDER``, with an order of:

``open``         one more connection on loopback;
``send``         each server sends a message, each client must get it;
``close``        all connections end;
``quit``         and the process too.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

LIFETIME = 600  # seconds
PATIENCE = 10  # seconds
MESSAGE = b"in order, once"


class Connections:
    """Pairs of (server's socket, client's socket)."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.pairs: list[tuple[socket.socket, socket.socket]] = []

    def open(self) -> None:
        """One more connection."""
        client = socket.create_connection(self.listener.getsockname(), PATIENCE)
        server, _address = self.listener.accept()
        self.pairs.append((server, client))

    def send(self) -> None:
        """A message over each. Raises RuntimeError when it does not arrive as it was sent."""
        for server, client in self.pairs:
            server.sendall(MESSAGE)
            got = client.recv(len(MESSAGE), socket.MSG_WAITALL)
            if got != MESSAGE:
                raise RuntimeError(f"sent {MESSAGE!r}, got {got!r}")

    def close(self) -> None:
        """The end of all."""
        for pair in self.pairs:
            for end in pair:
                end.close()
        self.pairs.clear()


def serve(control: socket.socket) -> None:
    """Carry out orders, each a connection of its own, and answer each."""
    signal.alarm(LIFETIME)
    connections = Connections()
    orders = {
        "open": connections.open,
        "send": connections.send,
        "close": connections.close,
        "quit": connections.close,
    }
    order = ""
    while order != "quit":
        talk, _address = control.accept()
        with talk:
            order = talk.recv(100).decode()
            try:
                orders[order]()
                talk.sendall(b"done")
            except (OSError, RuntimeError) as error:
                talk.sendall(str(error).encode())


def start(cgroup: str, path: str) -> None:
    """Leave a process behind that serves in the control group."""
    control = socket.socket(socket.AF_UNIX)
    control.bind(path)
    control.listen()
    if os.fork():
        return
    os.setsid()
    with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    serve(control)


def tell(path: str, order: str) -> None:
    """Give an order and wait for the answer. Exits with an error that is not ``done``."""
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(PATIENCE)
        talk.connect(path)
        talk.sendall(order.encode())
        answer = talk.recv(1000).decode()
    if answer != "done":
        sys.exit(answer)


if __name__ == "__main__":
    {"start": start, "tell": tell}[sys.argv[1]](*sys.argv[2:])
