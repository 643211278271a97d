# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: nginx in front of a local service, accelerated; every answer is compared.

All of it lives in a network namespace and a directory of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

GROUP = "molecule-sockmap"
FRONT, SERVICE = 7001, 7002
# Seconds; less than nginx's own patience, so that a stall fails.
PATIENCE, ALL_PATIENCE = 50, 200
SIZES = (0, 1, 1023, 4095, 4096, 4097, 8192, 16_384, 65_535, 100_000, 300_000)
ROUNDS = 4
CLONE_NEWNET = 0x40000000  # linux/sched.h

CONFIGURATION = """
daemon off; user root; worker_processes 2; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; keepalive_requests 100000; proxy_buffering on;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream service {{ server 127.0.0.1:{service}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{front};
        location / {{
            proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection "";
        }}
    }}
    server {{ listen 127.0.0.1:{service}; root {directory}/pages; }}
}}
"""


def wire() -> int:
    """Bytes that the loopback interface of this namespace has carried."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")


def enter() -> None:
    """A network namespace of its own, and the accelerated control group."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    Path(root, GROUP, "cgroup.procs").write_text("0")


@contextlib.contextmanager
def nginx(directory: str) -> Iterator[None]:
    configuration = Path(directory, "nginx.conf")
    configuration.write_text(
        CONFIGURATION.format(directory=directory, front=FRONT, service=SERVICE)
    )
    process = subprocess.Popen(["/usr/sbin/nginx", "-c", str(configuration), "-p", directory])
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def await_server() -> http.client.HTTPConnection:
    deadline = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", FRONT, timeout=PATIENCE)
        try:
            connection.connect()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return connection


def ask(pages: dict[str, bytes]) -> int:
    """Every page, over one connection. Returns the bytes that nginx and the service sent."""
    connection = await_server()
    sent = 0
    for _round in range(ROUNDS):
        for name, content in pages.items():
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or body != content:
                raise SystemExit(f"FAILED: page {name}: status {answer.status}, {len(body)} bytes")
            sent += 2 * len(body)
    connection.close()
    return sent


def main() -> None:
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"FAILED: not over after {ALL_PATIENCE} s"))
    signal.alarm(ALL_PATIENCE)
    pages = {str(size): os.urandom(size) for size in SIZES}
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "pages").mkdir()
        for name, content in pages.items():
            Path(directory, "pages", name).write_bytes(content)
        enter()
        with nginx(directory):
            before = wire()
            try:
                sent = ask(pages)
            except OSError as error:
                said = Path(directory, "error.log").read_text()
                raise SystemExit(f"FAILED: {error!r}: {said}") from error
            seen = wire() - before
    if seen > sent // 4:
        raise SystemExit(f"FAILED: {seen} of {sent} bytes took the stack")
    asked = ROUNDS * len(SIZES)
    print(f"{asked} pages through nginx, {sent} bytes, {seen} of them on the interface")


if __name__ == "__main__":
    main()
