# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: a service and clients that never stop, and what the accelerator is meanwhile.

`start` begins the traffic: a connection that stays, and one after the other that does not. `runs
RELEASE SHA256 ...` and `gone` compare the machine with what is expected, by its bpftool, and see
that requests go on and none has failed. `stop` ends the traffic.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUP = "molecule-traffic"
PORT = 9101
STATUS = Path("/run/molecule-traffic.json")
STORE = Path("/var/lib/ebpf-fleet/sockmap")
PINS = Path("/sys/fs/bpf/ebpf_fleet/sockmap")
PATIENCE = 60  # seconds
PAUSE = 0.2  # between requests: the machine has other work


def require(condition: bool, complaint: str) -> None:
    if not condition:
        raise SystemExit(f"FAILED: {complaint}")


def cgroup() -> Path:
    """The control group of the service and its clients."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    return Path(root, GROUP)


def receive(source: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = source.recv(length - len(data))
        if not part:
            raise EOFError(f"the stream ended, {length - len(data)} bytes were still to come")
        data += part
    return bytes(data)


def answer(connection: socket.socket) -> None:
    """A length, so many bytes; they are the answer, backwards."""
    with connection, contextlib.suppress(OSError, EOFError):
        connection.settimeout(PATIENCE)
        while True:
            (length,) = struct.unpack("!I", receive(connection, 4))
            connection.sendall(receive(connection, length)[::-1])


def serve(listener: socket.socket) -> None:
    while True:
        connection = listener.accept()[0]
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(connection: socket.socket, size: int) -> None:
    data = os.urandom(size)
    connection.sendall(struct.pack("!I", size) + data)
    if receive(connection, size) != data[::-1]:
        raise ValueError(f"the answer to {size} bytes is wrong")


def connect() -> socket.socket:
    return socket.create_connection(("127.0.0.1", PORT), PATIENCE)


def write(status: dict[str, Any]) -> None:
    fresh = STATUS.with_suffix(".new")
    fresh.write_text(json.dumps(status))
    fresh.replace(STATUS)


def traffic() -> None:
    """Requests until told to stop. What fails is written down, and the next one is tried."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    (cgroup() / "cgroup.procs").write_text("0")
    listener = socket.create_server(("127.0.0.1", PORT), backlog=128)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    sizes = random.Random(PORT)
    status: dict[str, Any] = {"pid": os.getpid(), "requests": 0, "failed": [], "over": False}
    lasting = connect()
    while not stop.is_set():
        try:
            with connect() as brief:
                ask(brief, sizes.choice((1, 700, 5000, 40_000)))
            ask(lasting, sizes.choice((1, 700, 5000, 40_000)))
            status["requests"] += 2
        except (OSError, EOFError, ValueError) as error:
            status["failed"].append(f"after {status['requests']}: {error!r}")
            lasting.close()
            with contextlib.suppress(OSError):
                lasting = connect()
        write(status)
        stop.wait(PAUSE)
    write({**status, "over": True})


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STATUS.read_text())
    require(not found["failed"], f"requests failed: {found['failed'][:5]}")
    return found


def wait_for(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        require(time.monotonic() < deadline, complaint)
        time.sleep(0.1)


def some_requests() -> None:
    begun = status()["requests"]
    wait_for(lambda: status()["requests"] >= begun + 20, "requests do not go on")


def start() -> None:
    cgroup().mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        STATUS.unlink()
    if os.fork() == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        traffic()
        os._exit(0)
    wait_for(STATUS.exists, "the traffic does not begin")
    some_requests()


def stop() -> None:
    """Ends the traffic, also one that was never begun."""
    if STATUS.exists():
        found = json.loads(STATUS.read_text())
        with contextlib.suppress(ProcessLookupError):
            os.kill(found["pid"], signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{found['pid']}").exists(), "the traffic does not end")
        found = status()
        require(found["over"], "the traffic ended before it was told to")
        STATUS.unlink()
        print(f"{found['requests']} requests, none failed")
    with contextlib.suppress(FileNotFoundError):
        cgroup().rmdir()


def bpftool(*arguments: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip() or "null")


def links() -> list[dict[str, Any]]:
    """Those to the control group; `cgroup show` of bpftool 7.1 needs Linux 6.1."""
    here = cgroup().stat().st_ino
    return [link for link in bpftool("link", "show") or [] if link.get("cgroup_id") == here]


def redirected() -> int:
    """Bytes that skipped the stack, of the data plane's counters."""
    dumped = bpftool("map", "dump", "pinned", str(PINS / "maps/counters"))
    per_cpu = dumped[0]["formatted"]["values"]
    return sum(int(cpu["value"]["redirected_bytes"]) for cpu in per_cpu)


def runs(*expected: str) -> None:
    """One of the releases runs, made of its object, and carries the traffic."""
    release = (STORE / "current").resolve().name
    objects = dict(zip(expected[::2], expected[1::2]))
    require(release in objects, f"{release} is the current release, expected was one of {objects}")
    sha256 = objects[release]
    ids = [link["prog_id"] for link in links() if link["attach_type"].endswith("sock_ops")]
    pinned = bpftool("prog", "show", "pinned", str(PINS / "sockmap_establish"))
    require(ids == [pinned["id"]], f"attached are {ids}, pinned is {pinned['id']}")
    known = pinned.get("metadata", {})
    require(known.get("sha256") == sha256, f"it is made of another object: {known}")
    require(known.get("release") == release, f"it is of another release: {known}")
    before = redirected()
    some_requests()
    require(redirected() > before, "the traffic is not accelerated")
    print(json.dumps({"program": pinned["id"], "requests": status()["requests"]}))


def gone() -> None:
    """Nothing of the accelerator is left, and the traffic goes on."""
    programs = bpftool("prog", "list")
    left = [one for one in programs if one.get("metadata", {}).get("owner") == "ebpf.fleet"]
    require(not left, f"programs are left: {left}")
    require(not PINS.exists(), f"{PINS} is left")
    require(not links(), f"something is attached: {links()}")
    some_requests()


if __name__ == "__main__":
    {"start": start, "stop": stop, "runs": runs, "gone": gone}[sys.argv[1]](*sys.argv[2:])
