# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets and connections of the machine's own, and how often a program ran for them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import witness

STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"
ETHERTYPE = 0x88B5  # for experiments, IEEE 802
FRAMES = 5
PATIENCE = 10.0  # seconds


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """The kernel counts how often each program runs."""
    with open(STATISTICS, encoding="ascii") as file:
        before = file.read()
    with open(STATISTICS, "w", encoding="ascii") as file:
        file.write("1")
    try:
        yield
    finally:
        with open(STATISTICS, "w", encoding="ascii") as file:
            file.write(before)


def runs(pin: str) -> int:
    """How often a program has run, as bpftool says."""
    return int(witness.prog(pin).get("run_cnt", 0))


def rises(pin: str, cause: Callable[[], None], patience: float = PATIENCE) -> bool:
    """Whether the program runs when something is done."""
    before = runs(pin)
    end = time.monotonic() + patience
    while time.monotonic() < end:
        cause()
        if runs(pin) > before:
            return True
        time.sleep(0.1)
    return False


def send(interface: str) -> None:
    """Some frames of an unknown protocol to everybody."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        frame = b"\xff" * 6 + b"\x02" + bytes(5) + struct.pack("!H", ETHERTYPE) + bytes(46)
        for dummy in range(FRAMES):
            with contextlib.suppress(OSError):  # ENOBUFS: a program of tc let nothing out
                sender.send(frame)


def arrives(sent_on: str, seen_on: str) -> bool:
    """Whether frames sent on one end of a wire arrive at the other; those that do need no 2 s."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE)) as receiver:
        receiver.bind((seen_on, ETHERTYPE))
        receiver.settimeout(2)
        send(sent_on)
        try:
            receiver.recv(64)
        except (socket.timeout, TimeoutError):
            return False
    return True


def talk(cgroup: str) -> None:
    """A connection of the machine with itself, by a process in the cgroup; a message each way."""
    child = os.fork()
    if child == 0:
        try:
            with open(os.path.join(cgroup, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")
            _exchange()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def _exchange() -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(server.getsockname(), timeout=60))
        accepted = stack.enter_context(server.accept()[0])
        accepted.settimeout(60)
        for end, other in ((client, accepted), (accepted, client)):
            end.sendall(b"x" * 100)
            other.recv(100)
