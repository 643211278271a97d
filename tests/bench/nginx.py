# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx in front of two nginx, as the documents have it, and wrk."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import environment
from environment import Path3, Variant

BODIES = {"small": 64, "16k": 16 * 1024, "128k": 128 * 1024}
CONNECTIONS = 100

COMMON = """
user root;
worker_processes 1;
daemon off;
pid {where}/pid;
error_log {where}/error.log;
events {{ worker_connections 4096; }}
"""

BACKEND = (
    COMMON
    + """
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    server {{ listen {address}:{port} backlog=4096; root {root}; }}
}}
"""
)

PROXY = (
    COMMON
    + """
http {{
    access_log off;
    keepalive_requests 100000000;
    proxy_max_temp_file_size 0;
    proxy_temp_path {where};
    upstream each {{ {servers} }}
    upstream kept {{ {servers} keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen {address}:{port} backlog=4096;
        location /each/ {{ proxy_pass http://each/; }}
        location /kept/ {{
            proxy_pass http://kept/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
)


@dataclass(frozen=True)
class Site:
    """A proxy in front of two backends, all in one variant."""

    variant: Variant
    client_netns: str | None
    url: str


def answers(site: Site, path: str) -> bool:
    """Whether the site serves the path."""
    command = ["curl", "-sf", "-o", "/dev/null", site.url + path]
    process = environment.start(site.variant, command, site.client_netns)
    process.communicate()
    return process.returncode == 0


def launch(stack: ExitStack, variant: Variant, where: Path, text: str, netns: str | None) -> None:
    """One nginx with its own directory, ended with the stack."""
    where.mkdir()
    config = where / "nginx.conf"
    config.write_text(text, encoding="ascii")
    command = ["nginx", "-p", str(where), "-e", str(where / "error.log"), "-c", str(config)]
    stack.callback(environment.stop, environment.start(variant, command, netns))


@contextmanager
def site(variant: Variant, scratch: Path, path: Path3 | None, port: int) -> Iterator[Site]:
    """The site, on loopback, or with client, proxy and backends in namespaces of their own."""
    root = scratch / "www"
    root.mkdir(exist_ok=True)
    for name, size in BODIES.items():
        (root / name).write_bytes(b"x" * size)
    front = environment.PROXY_ADDRESS if path else "127.0.0.1"
    back = environment.BACKEND_ADDRESS if path else "127.0.0.1"
    kind = "netns" if path else "lo"
    ports = (port + 1, port + 2)
    servers = " ".join(f"server {back}:{each};" for each in ports)
    with ExitStack() as stack:
        for each in ports:
            where = scratch / f"{variant.name}-{kind}-{each}"
            text = BACKEND.format(where=where, address=back, port=each, root=root)
            launch(stack, variant, where, text, path.backend if path else None)
        where = scratch / f"{variant.name}-{kind}-proxy"
        text = PROXY.format(where=where, address=front, port=port, servers=servers)
        launch(stack, variant, where, text, path.proxy if path else None)
        ready = Site(variant, path.client if path else None, f"http://{front}:{port}")
        deadline = time.monotonic() + 10
        while not answers(ready, "/kept/small"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"nginx does not answer: see {where}/error.log")
            time.sleep(0.1)
        yield ready


def wrk(at: Site, path: str, seconds: float) -> tuple[float, float]:
    """Requests a second and CPU microseconds a request (nginx and wrk together)."""
    before = environment.cpu_seconds(at.variant)
    url = f"{at.url}/{path}"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    text = environment.run(at.variant, command, at.client_netns)
    used = environment.cpu_seconds(at.variant) - before
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if "Non-2xx" in text or "Socket errors" in text or not requests or not rate:
        raise RuntimeError(f"wrk {url}: {text}")
    return float(rate[1]), used * 1e6 / int(requests[1])


def tools() -> list[str]:
    """What has to be installed for these rows."""
    needed = ("nginx", "wrk", "curl")
    return [
        name
        for name in needed
        if subprocess.run(["which", name], capture_output=True, check=False).returncode
    ]
