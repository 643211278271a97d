# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP through the balancer and through others: the same clients and servers, wrk on two clients.

The others run on the second balancer, where no XDP program is in their way.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import environment
import servers
import topology
from topology import Node, Topology

CONNECTIONS = 50  # of each of two clients
SECONDS = 2
PROXY_PORT = {"nginx": 8080, "haproxy": 8081}
NFTABLES_VIP = "192.0.2.99"
TOOLS = ("nginx", "wrk", "haproxy", "nft")

NGINX = """
daemon off;
master_process off;
pid {where}/pid;
error_log {where}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    upstream kept {{ {servers} keepalive 128; keepalive_requests 100000000; }}
    server {{
        listen {port} backlog=4096;
        location / {{
            proxy_pass http://kept;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

HAPROXY = """
global
    maxconn 8192
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend f
    bind :{port}
    default_backend b
backend b
    balance roundrobin
{servers}
"""

# The connection's hash chooses, as in the balancer; answers come back through the same host.
NFTABLES = """
table ip bench
flush table ip bench
table ip bench {{
    chain before {{
        type nat hook prerouting priority dstnat;
        ip daddr {vip} tcp dport 80 dnat to jhash ip saddr . tcp sport mod {count} map {{ {map} }}
    }}
    chain after {{
        type nat hook postrouting priority srcnat;
        ct status dnat masquerade
    }}
}}
"""


@dataclass(frozen=True)
class Figures:
    """One run of wrk on both clients: requests a second, p99 and CPU time a request in us."""

    rate: float
    p99: float
    cpu: float


Ask = Callable[[], Figures]


def tools() -> list[str]:
    """What has to be installed for these rows."""
    return [
        name
        for name in TOOLS
        if subprocess.run(["which", name], capture_output=True, check=False).returncode
    ]


def wrk(clients: tuple[Node, ...], urls: tuple[str, ...]) -> Figures:
    """Ask for SECONDS from each client at once. The whole machine's CPU time counts."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency"]
    before = environment.machine_seconds()
    running = [
        subprocess.Popen(client.command(*command, url), stdout=subprocess.PIPE, text=True)
        for client, url in zip(clients, urls)
    ]
    texts = [process.communicate()[0] for process in running]
    used = environment.machine_seconds() - before
    found = [parsed(text, url) for text, url in zip(texts, urls)]
    requests = sum(count for count, _rate, _p99 in found)
    return Figures(
        rate=sum(rate for _count, rate, _p99 in found),
        p99=max(p99 for _count, _rate, p99 in found),
        cpu=used * 1e6 / requests,
    )


def parsed(text: str, url: str) -> tuple[int, float, float]:
    """Requests, requests a second, p99 in us. Raises RuntimeError when any went wrong."""
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if "Non-2xx" in text or "Socket errors" in text or not requests or not rate or not p99:
        raise RuntimeError(f"wrk {url}: {text}")
    unit = {"us": 1.0, "ms": 1e3, "s": 1e6}[p99[2]]
    return int(requests[1]), float(rate[1]), float(p99[1]) * unit


@contextmanager
def proxies(
    network: Topology, behind: Sequence[Node], scratch: Path
) -> Iterator[dict[str, tuple[str, ...]]]:
    """nginx, HAProxy and nftables at work on the second balancer; the URLs for both clients."""
    node = network.balancers[1]
    backends = [f"{backend.ipv4}:{servers.HTTP}" for backend in behind]
    with ExitStack() as stack:
        topology.xdp(network.router, node.name, None)
        nginx = scratch / "proxy.conf"
        listed = " ".join(f"server {backend};" for backend in backends)
        nginx.write_text(NGINX.format(where=scratch, servers=listed, port=PROXY_PORT["nginx"]))
        start(stack, node, ["nginx", "-p", str(scratch), "-c", str(nginx)], PROXY_PORT["nginx"])
        haproxy = scratch / "haproxy.cfg"
        lines = "\n".join(f"    server s{n} {backend}" for n, backend in enumerate(backends))
        haproxy.write_text(HAPROXY.format(servers=lines, port=PROXY_PORT["haproxy"]))
        start(stack, node, ["haproxy", "-db", "-f", str(haproxy)], PROXY_PORT["haproxy"])
        translate(network, behind, scratch)
        urls = {name: f"http://{node.ipv4}:{port}/" for name, port in PROXY_PORT.items()}
        urls["nftables"] = f"http://{NFTABLES_VIP}/"
        yield {name: (url, url) for name, url in urls.items()}


def translate(network: Topology, behind: Sequence[Node], scratch: Path) -> None:
    """nftables at work on the second balancer, for NFTABLES_VIP."""
    node = network.balancers[1]
    choices = ", ".join(f"{n} : {backend.ipv4}" for n, backend in enumerate(behind))
    rules = scratch / "rules.nft"
    text = NFTABLES.format(vip=NFTABLES_VIP, count=len(behind), map=choices)
    rules.write_text(text)
    node.run("nft", "-f", str(rules))
    network.route(NFTABLES_VIP, node)


def start(stack: ExitStack, node: Node, command: list[str], port: int) -> None:
    """A server in the box, which listens when this returns and ends with the stack."""
    process = subprocess.Popen(node.command(*command), stdin=subprocess.DEVNULL)
    stack.enter_context(servers.stopped(process))
    deadline = time.monotonic() + 10
    while not servers.listens(node, port):
        if time.monotonic() > deadline or process.poll() is not None:
            raise RuntimeError(f"{command[0]} does not listen on {port}")
        time.sleep(0.05)
