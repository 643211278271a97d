# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients do: curl, wrk, pings, and load that runs while something changes."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from topology import HERE, Node

START = 15.0  # seconds in which all clients have to have worked once


def url(address: str, port: int = 80) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def curl(client: Node, address: str, path: str = "/", *more: str, port: int = 80) -> str:
    """One request. Raises TopologyError when it fails."""
    options = ["--silent", "--show-error", "--fail", "--max-time", "5", "--noproxy", "*"]
    return client.run("curl", *options, *more, url(address, port) + path)


def answers(client: Node, address: str, port: int = 80, seconds: float = 5.0) -> bool:
    """Whether a TCP connection can be made."""
    try:
        with tcp(client, address, port, seconds):
            return True
    except OSError:
        return False


def tcp(client: Node, address: str, port: int, timeout: float = 5.0) -> socket.socket:
    """A TCP connection of a box."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.entered():
        made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(timeout)
    try:
        made.connect((address, port))
    except OSError:
        made.close()
        raise
    return made


def ask(client: Node, address: str, question: bytes, timeout: float = 5.0, port: int = 0) -> bytes:
    """A question over UDP, from the port if one is given, and its answer. Raises TimeoutError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with client.entered():
        made = socket.socket(family, socket.SOCK_DGRAM)
    with made:
        made.settimeout(timeout)
        made.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        made.connect((address, 53))
        made.send(question)
        return made.recv(65535)


def echoes(client: Node, address: str, length: int = 56, count: int = 1) -> int:
    """How many of `count` pings with `length` bytes of data are answered, each as it was sent."""
    six = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    family = socket.AF_INET6 if six else socket.AF_INET
    with client.entered():
        made = socket.socket(family, socket.SOCK_RAW, protocol)
    answered = 0
    with made:
        made.settimeout(5.0)
        made.connect((address, 0))
        for number in range(count):
            data = bytes(each & 0xFF for each in range(length))
            head = struct.pack("!BBHHH", 128 if six else 8, 0, 0, 0x4242, number)
            if not six:  # the kernel does it for ICMPv6
                head = head[:2] + struct.pack("!H", checksum(head + data)) + head[4:]
            made.send(head + data)
            answered += _answered(made, six, head[4:] + data)
    return answered


def _answered(made: socket.socket, six: bool, expected: bytes) -> bool:
    try:
        while True:
            packet = made.recv(65535)
            message = packet if six else packet[(packet[0] & 15) * 4 :]
            if message[0] == (129 if six else 0) and message[4:] == expected:
                return six or checksum(message) == 0
    except TimeoutError:
        return False


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071); 0 over data that holds its own."""
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True)
class Wrk:
    requests: int
    errors: str  # what wrk says of socket errors and statuses; empty when there are none


def wrk(client: Node, address: str, seconds: int = 2, connections: int = 20) -> Wrk:
    words = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "5s"]
    return _wrk_said(client.run("wrk", *words, url(address) + "/"))


@contextmanager
def wrk_meanwhile(client: Node, address: str, connections: int = 10) -> Iterator[list[Wrk]]:
    """wrk at work while the context lasts; afterwards the list has what it saw."""
    words = ["-t1", f"-c{connections}", "-d60s", "--timeout", "5s", url(address) + "/"]
    process = subprocess.Popen(client.command("wrk", *words), stdout=subprocess.PIPE, text=True)
    seen: list[Wrk] = []
    try:
        yield seen
        process.send_signal(signal.SIGINT)  # on which it ends and reports
        seen.append(_wrk_said(process.communicate(timeout=10)[0]))
    finally:
        process.kill()
        process.communicate()


def _wrk_said(said: str) -> Wrk:
    found = re.search(r"(\d+) requests in", said)
    assert found, said
    errors = re.findall(r"^\s*((?:Socket errors|Non-2xx).*)$", said, re.MULTILINE)
    return Wrk(int(found[1]), "; ".join(errors))


@dataclass
class Report:
    """What a load's clients saw; filled when it has ended. See load.Tally."""

    tallies: dict[str, dict[str, object]] = field(default_factory=dict)

    def total(self, what: str) -> int:
        return sum(int(str(tally[what])) for tally in self.tallies.values())

    def backends(self, kind: str) -> dict[str, int]:
        found = self.tallies[kind]["backends"]
        assert isinstance(found, dict)
        return found

    def assert_clean(self, moved: int = 0) -> None:
        """Every kind of client did something, nothing failed, and no flow changed its backend."""
        assert self.total("failed") == 0, self.tallies
        assert self.total("moved") == moved, self.tallies
        assert all(tally["done"] for tally in self.tallies.values()), self.tallies


@contextmanager
def load(client: Node, address: str, **counts: int) -> Iterator[Report]:
    """Clients at work while the context lasts; all have worked once before it begins."""
    wanted = json.dumps({"address": address, **counts})
    command = client.command(sys.executable, "-I", "-S", str(HERE / "load.py"), wanted)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    report = Report()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", f"{line}{process.stderr and process.stderr.read()}"
        yield report
        said, complaint = process.communicate("", timeout=30)
        assert not complaint, complaint
        report.tallies.update(json.loads(said))
    finally:
        process.kill()
        process.communicate()
