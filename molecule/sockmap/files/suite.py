# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: is what the accelerator carries right, and does it skip the stack?

All of it lives in a network namespace of its own, whose loopback interface counts every byte that
takes the stack; the machine's bpftool is asked for the rest. The first thing that is wrong ends it.
The argument says whether FIONREAD is expected to count redirected bytes.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

GROUPS = ("molecule-sockmap", "molecule-plain")  # the first one is accelerated
MAPS = "/sys/fs/bpf/ebpf_fleet/sockmap/maps/"
PORT, OTHER_PORT = 7000, 6000  # the second one is in no policy
PATIENCE = 60  # seconds, of one call
ALL_PATIENCE = 400
CLONE_NEWNET = 0x40000000  # linux/sched.h
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger
BUFFERS = {"tcp_rmem": "4096 131072 6291456", "tcp_wmem": "4096 16384 4194304"}
# What plain TCP accepts for a reader that does not read, and what the accelerator may add.
MOST_UNREAD = 6291456 + 4194304 + (4 << 20)

Pair = tuple[socket.socket, socket.socket]


def require(condition: bool, complaint: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {complaint}")


def cgroups() -> Path:
    """Where cgroup2 is mounted."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return Path(next(mount[1] for mount in mounts if mount[2] == "cgroup2"))


def enter(accelerated: bool) -> None:
    """Sockets are made in one of the two control groups from now on."""
    group = GROUPS[0 if accelerated else 1]
    (cgroups() / group / "cgroup.procs").write_text("0")


def bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip() or "null")


def counters() -> dict[str, int]:
    """The data plane's counters, summed over the CPUs."""
    dumped = bpftool("map", "dump", "pinned", MAPS + "counters")
    totals: dict[str, int] = {}
    for cpu in dumped[0]["formatted"]["values"]:
        for name, number in cpu["value"].items():
            totals[name] = totals.get(name, 0) + int(number)
    return totals


def sockets_in_map() -> int:
    return len(bpftool("map", "dump", "pinned", MAPS + "sockets"))


def wire() -> int:
    """Bytes that the loopback interface of this namespace has carried."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _colon, figures = line.partition(":")
        if name.strip() == "lo":
            return int(figures.split()[0])
    raise SystemExit("FAILED: there is no lo")


def isolate() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    require(libc.unshare(CLONE_NEWNET) == 0, "no network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, value in BUFFERS.items():
        Path("/proc/sys/net/ipv4", name).write_text(value)


def listen(address: str = "127.0.0.1", port: int = PORT) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen(512)
    return listener


def connect(listener: socket.socket) -> socket.socket:
    client = socket.socket(listener.family)
    client.settimeout(PATIENCE)
    client.connect(listener.getsockname()[:2])
    return client


def accept(listener: socket.socket) -> socket.socket:
    server = listener.accept()[0]
    server.settimeout(PATIENCE)
    return server


@contextlib.contextmanager
def pair(address: str = "127.0.0.1", port: int = PORT) -> Iterator[Pair]:
    with listen(address, port) as listener, connect(listener) as client, accept(listener) as server:
        yield client, server


def receive(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = source.recv(min(1 << 18, length - len(data)))
        if not part:
            break
        data += part
    return bytes(data)


def exchange(ends: Pair, data: bytes) -> None:
    for sender, receiver in (ends, ends[::-1]):
        with sending(sender, data):
            require(receive(receiver, len(data)) == data, "bytes are not as they were sent")


@contextlib.contextmanager
def sending(target: socket.socket, data: bytes) -> Iterator[None]:
    thread = threading.Thread(target=target.sendall, args=(data,), daemon=True)
    thread.start()
    yield
    thread.join(PATIENCE)
    require(not thread.is_alive(), "a writer was not let go on")


def ping_pong(address: str) -> tuple[int, int]:
    """Messages to and fro. Returns the bytes sent, and those on the wire."""
    before = wire()
    sent = 0
    with pair(address) as ends:
        for number in range(60):
            data = os.urandom((1, 64, 1400, 16_384, 65_536)[number % 5])
            exchange(ends, data)
            sent += 2 * len(data)
    return sent, wire() - before


def messages_skip_the_stack() -> str:
    total = 0
    for address in ("127.0.0.1", "::1"):
        for _try in range(5):
            before = counters()
            sent, seen = ping_pong(address)
            after = counters()
            # A round trip of so many whole milliseconds looks like a SYN cookie's: left on TCP.
            if after["syn_cookie"] == before["syn_cookie"]:
                break
        redirected = after["redirected_bytes"] - before["redirected_bytes"]
        require(seen < sent // 50, f"{seen} of {sent} bytes took the stack ({address})")
        require(redirected >= sent, f"only {redirected} of {sent} bytes were redirected")
        total += sent
    return f"{total} bytes"


def what_is_outside_does_not() -> str:
    """The control: outside of the control group, to one outside, on a port that was not named."""
    before = counters()
    enter(accelerated=False)
    sent, seen = ping_pong("127.0.0.1")
    require(seen >= sent, "the control was accelerated")
    listener = listen()
    enter(accelerated=True)
    data, before_wire = os.urandom(200_000), wire()
    with listener, connect(listener) as client, accept(listener) as server:
        exchange((client, server), data)
    with pair(port=OTHER_PORT) as ends:
        exchange(ends, data)
    require(wire() - before_wire >= 4 * len(data), "what was not named was accelerated")
    after = counters()
    require(
        after["redirected_bytes"] == before["redirected_bytes"], "others' bytes were redirected"
    )
    require(after["no_peer"] > before["no_peer"], "nobody counted the end that is outside")
    require(after["not_policy"] == before["not_policy"] + 2, "nobody counted the port")
    return "on TCP, and counted"


def bulk_both_ways() -> str:
    contents = os.urandom(8 << 20), os.urandom(8 << 20)
    with contextlib.ExitStack() as stack:
        client, server = stack.enter_context(pair())
        stack.enter_context(sending(client, contents[0]))
        stack.enter_context(sending(server, contents[1]))
        sums: dict[socket.socket, str] = {}

        def read(source: socket.socket) -> None:
            sums[source] = hashlib.sha256(receive(source, 8 << 20)).hexdigest()

        readers = [threading.Thread(target=read, args=(end,)) for end in (server, client)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(2 * PATIENCE)
        for end, content in zip((server, client), contents):
            digest = hashlib.sha256(content).hexdigest()
            require(sums.get(end) == digest, "a stream is wrong")
    return "16 MiB"


def half_closes() -> str:
    """A request, its end, and a read for the answer that blocks."""
    with listen() as listener:

        def serve() -> None:
            for _round in range(20):
                with accept(listener) as server:
                    server.setblocking(True)
                    server.sendall(receive(server, 1 << 30) * 100)

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        for number in range(20):
            with connect(listener) as client:
                client.setblocking(True)
                client.sendall(b"request %d" % number)
                client.shutdown(socket.SHUT_WR)
                require(receive(client, 1 << 30) == b"request %d" % number * 100, "half an answer")
        serving.join(PATIENCE)
    return "20"


def many_at_once() -> str:
    with listen() as listener, contextlib.ExitStack() as stack:
        pairs = []
        for _number in range(150):
            client = stack.enter_context(connect(listener))
            pairs.append((client, stack.enter_context(accept(listener))))
        for _round in range(2):
            for number, (client, _server) in enumerate(pairs):
                client.sendall(b"%06d" % number * 200)
            for number, ends in enumerate(pairs):
                require(
                    receive(ends[1], 1200) == b"%06d" % number * 200, "a message of another one"
                )
        require(sockets_in_map() >= 280, "hardly a socket is in the map")
    deadline = time.monotonic() + PATIENCE
    while sockets_in_map():
        require(time.monotonic() < deadline, "sockets that are closed stay in the map")
        time.sleep(0.1)
    return "150"


def short_ones() -> str:
    wrong: list[str] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with accept(listener) as server:
                    data = receive(server, 3000)
                    for at in range(0, 3000, 1000):
                        server.sendall(data[at : at + 1000])

    def ask(listener: socket.socket) -> None:
        for _round in range(50):
            data = os.urandom(3000)
            with connect(listener) as client:
                for at in range(0, 3000, 1000):
                    client.sendall(data[at : at + 1000])
                if receive(client, 3001) != data:
                    wrong.append("an answer is not its request")

    with listen() as listener:
        for _server in range(4):
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
        asking = [threading.Thread(target=ask, args=(listener,)) for _client in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(3 * PATIENCE)
            require(not thread.is_alive(), "a connection hangs")
        listener.shutdown(socket.SHUT_RDWR)
    require(not wrong, "; ".join(wrong[:3]))
    return "200"


def a_reader_that_does_not_read() -> str:
    """Its writer is stopped; what was accepted is all there, in order, when it is read at last."""
    before = counters()
    block = os.urandom(1 << 20)
    with pair() as (client, server):
        exchange((client, server), b"hello")
        client.setblocking(False)
        digest, accepted, last = hashlib.sha256(), 0, time.monotonic()
        while accepted < 2 * MOST_UNREAD and time.monotonic() < last + 2:
            at = accepted % len(block)
            try:
                taken = client.send(block[at : at + 65_536])
            except BlockingIOError:
                time.sleep(0.02)
                continue
            digest.update(block[at : at + taken])
            accepted, last = accepted + taken, time.monotonic()
        require(
            accepted <= MOST_UNREAD,
            f"{accepted} bytes were accepted, and none read",
        )
        client.settimeout(PATIENCE)
        found = hashlib.sha256(receive(server, accepted)).hexdigest()
        require(found == digest.hexdigest(), "what was read late is not what was sent")
        exchange((client, server), b"goodbye")
    risen = [name for name, number in counters().items() if number > before[name]]
    require("backlog" in risen or "syn_cookie" in risen, "nothing went back to TCP")
    return f"{accepted} bytes accepted"


def resets() -> str:
    for _round in range(5):
        with pair() as (client, server):
            exchange((client, server), b"hello")
            server.sendall(b"the last words")
            server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            server.close()
            require(receive(client, 14) == b"the last words", "the last words were lost")
            with contextlib.suppress(ConnectionResetError):
                raise SystemExit(f"FAILED: no reset, but {client.recv(1)!r}")
        with pair() as (client, server):
            exchange((client, server), b"hello")
            client.sendall(b"never read")
            server.close()
            deadline = time.monotonic() + PATIENCE
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while time.monotonic() < deadline:
                    client.sendall(b"anybody there?")
                    time.sleep(0.005)
                raise SystemExit("FAILED: the writer is not told that the reader is gone")
    return "10"


def bytes_waiting(expected: bool) -> str:
    """FIONREAD counts redirected bytes, or does not, as the host's facts say."""
    answer = array.array("i", [-1])
    for _try in range(5):
        before = counters()["syn_cookie"]
        with pair() as (client, server):
            exchange((client, server), b"hello")
            client.sendall(bytes(1234))
            require(bool(select.select([server], [], [], PATIENCE)[0]), "nothing to read")
            fcntl.ioctl(server, termios.FIONREAD, answer)
            require(receive(server, 1234) == bytes(1234), "not what was sent")
        if counters()["syn_cookie"] == before:
            break
    require(
        (answer[0] == 1234) == expected,
        f"FIONREAD says {answer[0]}, which is not as expected",
    )
    return f"FIONREAD says {answer[0]} of 1234"


def suite(fionread: bool) -> None:
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED: not over after {ALL_PATIENCE} s"))
    signal.alarm(ALL_PATIENCE)
    isolate()
    enter(accelerated=True)
    said = {}
    cases = (
        messages_skip_the_stack,
        what_is_outside_does_not,
        bulk_both_ways,
        half_closes,
        many_at_once,
        short_ones,
        a_reader_that_does_not_read,
        resets,
    )
    for case in cases:
        begin = time.monotonic()
        try:
            found = case()
        except OSError as error:
            raise SystemExit(f"FAILED: {case.__name__}: {error!r}") from error
        said[case.__name__] = f"{found}, {time.monotonic() - begin:.1f} s"
    said["bytes_waiting"] = bytes_waiting(fionread)
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    suite(fionread=sys.argv[1] == "true")
