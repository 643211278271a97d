# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of every kind while a trace runs: talk.py MAPS CGROUP PORT.

Waits until events are switched on and somebody reads them; ends that process's trace afterwards.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PATIENCE = 120
ACCELERATED, OTHER_PORT, SILENT, OUTSIDE = 25, 15, 5, 7


def bpftool(*words: str) -> Any:
    """What bpftool says."""
    said = subprocess.run(["bpftool", "-j", *words], check=True, capture_output=True, text=True)
    return json.loads(said.stdout)


def readers(maps: str) -> list[int]:
    """The processes that have the ring buffer open, and in their memory: from then on they read."""
    wanted = f"map_id:\t{bpftool('map', 'show', 'pinned', f'{maps}/events')['id']}\n"
    found = set()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # processes end, and descriptors are closed
            for name in os.listdir(f"/proc/{process}/fdinfo"):
                if (
                    wanted in Path(f"/proc/{process}/fdinfo/{name}").read_text(encoding="ascii")
                    and "bpf-map" in Path(f"/proc/{process}/maps").read_text()
                ):
                    found.add(int(process))
    return sorted(found)


def events_are_on(maps: str) -> bool:
    """What the accelerator's settings say."""
    shown = bpftool("map", "dump", "pinned", f"{maps}/settings")
    return bool(shown[0]["formatted"]["value"]["events"])


def await_trace(maps: str) -> None:
    """Wait for somebody who reads."""
    end = time.monotonic() + PATIENCE
    while not (readers(maps) and events_are_on(maps)):
        if time.monotonic() > end:
            raise SystemExit("nobody traces")
        time.sleep(0.2)


def connect(port: int, *, talks: bool) -> None:
    """A connection whose server speaks first, so that both ends are established by then."""
    with socket.create_server(("127.0.0.1", port)) as server:
        with socket.create_connection(("127.0.0.1", port)) as client, server.accept()[0] as served:
            for _message in range(3 if talks else 0):
                served.sendall(b"x" * 100)
                client.recv(100, socket.MSG_WAITALL)
                client.sendall(b"y" * 100)
                served.recv(100, socket.MSG_WAITALL)


def serve(port: int) -> int:
    """A server in a process that stays outside the control group. Returns its id."""
    server = socket.create_server(("127.0.0.1", port))
    child = os.fork()
    if child:
        server.close()
        return child
    for _connection in range(OUTSIDE):
        with server.accept()[0] as served:
            while data := served.recv(100):
                served.sendall(data)
    os._exit(0)


def main(maps: str, cgroup: str, port: str) -> None:
    """Talk, and say what is to be seen."""
    await_trace(maps)
    child = serve(int(port))
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    for _connection in range(OUTSIDE):
        with socket.create_connection(("127.0.0.1", int(port))) as client:
            client.sendall(b"z")
            client.recv(1)
    os.waitpid(child, 0)
    for count, where, talks in (
        (ACCELERATED, int(port), True),
        (SILENT, int(port), False),
        (OTHER_PORT, int(port) + 1000, True),
    ):
        for _connection in range(count):
            connect(where, talks=talks)
    for reader in readers(maps):
        if reader != os.getpid():
            with contextlib.suppress(ProcessLookupError):  # it ends with the other of its trace
                os.kill(reader, signal.SIGINT)
    print(
        json.dumps(
            {
                "accelerated": ACCELERATED,
                "undecided": SILENT,
                "tcp not_policy": OTHER_PORT,
                "tcp no_peer": OUTSIDE,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
