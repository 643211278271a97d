# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine serves, and the counters of what reaches it. Needs Python 3.9, and service.py.

server.py up TOLD     nginx and the service below run, the kernel counts, reverse paths are checked
server.py down TOLD   none of it
server.py serve NAME  UDP 5300, 5301: a question is answered by NAME and the question, from where it
                      was sent to; TCP 127.0.0.1:8001: what is sent is answered by its SHA-256
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

WEB, WEB_INSIDE, LINES, LINES_INSIDE, DIGESTS = 8000, 8080, 5300, 5301, 8001
NAT_PORTS = "1024-32767"  # the role's default
BLOB = 256 << 10  # bytes
DIRECTORY = Path("/var/tmp/xdp_lb")
CONF = Path("/proc/sys/net/ipv4/conf")
SITE = Path("/etc/nginx/conf.d/xdp_lb.conf")
UNIT = "xdp-lb-lines"
TABLE = "xdp_lb_witness"

NGINX = """
server {{
    listen {web} default_server;
    listen [::]:{web} default_server;
    listen {inside} default_server;
    listen [::]:{inside} default_server;
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 100000;
    root {directory};
    add_header X-Client $remote_addr always;
    location = / {{ return 200 "{name}\\n"; }}
    location = /blob {{ }}
    location = /digest {{ proxy_pass http://127.0.0.1:{digests}; client_max_body_size 0; }}
}}
"""


def run(*words: str, check: bool = True, text: str | None = None) -> None:
    subprocess.run(words, check=check, input=text, text=True, stdout=subprocess.DEVNULL)


def up(told: dict[str, Any]) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / "blob").write_bytes(bytes(range(256)) * (BLOB // 256))
    shutil.copy(__file__, DIRECTORY / "server.py")
    ports = {"web": WEB, "inside": WEB_INSIDE, "digests": DIGESTS}
    SITE.write_text(NGINX.format(name=told["name"], directory=DIRECTORY, **ports))
    run("systemctl", "restart", "nginx")
    serve = [sys.executable, str(DIRECTORY / "server.py"), "serve", told["name"]]
    run("systemd-run", "--quiet", "--unit", UNIT, "--property", "Restart=always", *serve)
    run("nft", "-f", "-", text=counters(told))
    reverse_paths(dict.fromkeys(keep_reverse_paths(told), "1"))
    for port in (WEB, WEB_INSIDE, DIGESTS):
        wait_for_port(port)


def counters(told: dict[str, Any]) -> str:
    """One counter for each way of forwarding: its clients' packets as the stack gets them."""
    lines = []
    for way in told["ways"]:
        family = "ip6" if ":" in way["vip"] else "ip"
        if way["forwarding"] == "nat":
            index = 1 if family == "ip6" else 0
            machines = ", ".join(addresses[index] for addresses in told["addresses"].values())
            ports = f"{WEB_INSIDE}, {LINES_INSIDE}"
            match = f"{family} saddr {{ {machines} }} th sport {NAT_PORTS} th dport {{ {ports} }}"
        else:
            device = "lb*" if way["forwarding"] == "ipip" else told["interface"]
            match = f'iifname "{device}" {family} daddr {way["vip"]} th dport {{ {WEB}, {LINES} }}'
        lines.append((way["name"], f"meta l4proto {{ tcp, udp }} {match}"))
    return "\n".join(
        [
            f"table inet {TABLE} {{",
            *(f"counter {name} {{ }}" for name, _match in lines),
            "chain arriving {",
            "type filter hook prerouting priority -300;",
            *(f"{match} counter name {name}" for name, match in lines),
            "}",
            "}",
        ]
    )


def keep_reverse_paths(told: dict[str, Any]) -> dict[str, str]:
    """How strict this host is about where packets come in; a tunnel device begins as `default`."""
    names = (told["interface"], "default")
    found = {name: (CONF / name / "rp_filter").read_text() for name in names}
    (DIRECTORY / "rp_filter").write_text(json.dumps(found))
    return found


def reverse_paths(wanted: dict[str, str]) -> None:
    for name, value in wanted.items():
        (CONF / name / "rp_filter").write_text(value)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def down(_told: dict[str, Any]) -> None:
    run("systemctl", "stop", "nginx", UNIT, check=False)
    with contextlib.suppress(FileNotFoundError):
        SITE.unlink()
    with contextlib.suppress(FileNotFoundError):
        reverse_paths(json.loads((DIRECTORY / "rp_filter").read_text()))
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    subprocess.run(
        ["nft", "delete", "table", "inet", TABLE], stderr=subprocess.DEVNULL, check=False
    )
    for family, vips in (("-4", "192.0.2.0/24"), ("-6", "2001:db8:77::/64")):  # the client's
        words = ["ip", family, "route", "del", vips]
        subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
    # The role's devices are gone; the modules' own, tunl0 and ip6tnl0, go with the modules.
    for module in ("ipip", "ip6_tunnel"):
        subprocess.run(["modprobe", "-r", module], stderr=subprocess.DEVNULL, check=False)


class Digest(http.server.BaseHTTPRequestHandler):
    """Answers a POST with the digest of its body."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        said = hashlib.sha256(body).hexdigest().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def serve(name: str) -> None:
    import service  # tests/balancer/service.py, which prepare.yml puts beside this file

    for family in (socket.AF_INET, socket.AF_INET6):
        for port in (LINES, LINES_INSIDE):
            arguments = (name.encode(), family, port)
            threading.Thread(target=service.answer, args=arguments, daemon=True).start()
    http.server.ThreadingHTTPServer(("127.0.0.1", DIGESTS), Digest).serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    os.umask(0o022)
    {"up": up, "down": down}[sys.argv[1]](json.loads(sys.argv[2]))
