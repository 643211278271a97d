# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on the backends: nginx as Debian has it, and service.py beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from topology import HERE, Node, Topology, TopologyError, wait_for

HTTP, HTTP_INSIDE = 80, 8080  # the second is where nat may send what came for the first

# One process, so that it dies when the tests do.
NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log {directory}/error.log notice;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 80 backlog=4096;
        listen [::]:80 backlog=4096;
        listen 8080 backlog=4096;
        listen [::]:8080 backlog=4096;
        root {directory}/www;
        add_header X-Client $remote_addr always;
        location = / {{ return 200 "{name}\\n"; }}
        location = /healthz {{ try_files /health =503; }}
        location /put/ {{ dav_methods PUT DELETE; }}
    }}
}}
"""


@dataclass(frozen=True)
class Server:
    """The servers of one backend; `www` is what its nginx serves, `www/put` takes uploads."""

    node: Node
    directory: Path
    nginx: subprocess.Popen[bytes]

    @property
    def www(self) -> Path:
        return self.directory / "www"

    def healthy(self, well: bool) -> None:
        """Whether /healthz answers 200 or 503."""
        if well:
            (self.www / "health").write_text("ok\n")
        else:
            (self.www / "health").unlink(missing_ok=True)


def listens(node: Node, port: int) -> bool:
    return bool(node.run("ss", "-Hltn", f"sport = :{port}"))


@contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process with the context."""
    try:
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def nginx(node: Node, directory: Path) -> Iterator[Server]:
    """nginx in one box; `/` answers the box's name, and HTTP_INSIDE is the same as HTTP."""
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "www" / "put").mkdir(parents=True)
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(directory=directory, name=node.name))
    command = node.command("nginx", "-p", str(directory), "-c", str(configuration))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with stopped(process):
        if not wait_for(lambda: listens(node, HTTP_INSIDE)):
            raise TopologyError(f"{node.name}: {(directory / 'error.log').read_text()}")
        server = Server(node, directory, process)
        server.healthy(True)
        yield server


@contextmanager
def service(node: Node) -> Iterator[None]:
    command = node.command(sys.executable, "-I", "-S", str(HERE / "service.py"), node.name)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    with stopped(process):
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise TopologyError(f"{node.name}: service.py did not start")
        yield


@contextmanager
def serving(network: Topology, directory: Path) -> Iterator[tuple[Server, ...]]:
    """All servers on all backends."""
    with ExitStack() as stack:
        for node in network.backends:
            stack.enter_context(service(node))
        yield tuple(
            stack.enter_context(nginx(node, directory / node.name)) for node in network.backends
        )
