# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is made of: names, addresses and paths. Nothing here does anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

LAB = Path(__file__).resolve().parent
REPOSITORY = LAB.parents[1]
FILES = LAB / "files"

# Which lab: "lab", or "rollout", "metrics", "report" or "bench", which have other hosts, and can be up at the same time.
WHICH = os.environ.get("EBPF_FLEET_LAB", "lab")

# Everything the lab has on this machine is below STATE, or in the cgroup of the same name.
NAME = f"ebpf-fleet-{WHICH}"
STATE = Path("/run") / NAME
SSH_CONFIG = STATE / "ssh_config"
KNOWN_HOSTS = STATE / "known_hosts"
USER_KEY = STATE / "id_ed25519"
LOGS = STATE / "log"
SSH_MASTERS = STATE / "ssh"
FABRIC_NETNS = STATE / "fabric.netns"
CONTROLLER_NETNS = STATE / "controller.netns"
ROUTER_NETNS = STATE / "router.netns"
FABRIC_READY = STATE / "fabric.ready"
PASS_OBJECT = STATE / "pass.o"
FIGURES = STATE / "figures.json"

IPV4_PREFIX = 24
IPV6_PREFIX = 64


@dataclass(frozen=True)
class Network:
    """One segment: a bridge, and /24 and /64 addresses that end in the number of who has them."""

    bridge: str
    ipv4: str
    ipv6: str
    mtu: int = 1500

    def addresses(self, number: int) -> tuple[str, str]:
        """IPv4 and IPv6, without their prefix lengths."""
        return f"{self.ipv4}.{number}", f"{self.ipv6}::{number}"


# Over which the controller reaches the hosts.
MANAGEMENT = Network("br0", "10.77.0", "fd77:eb:f")
# Balancers and backends. Its frames are larger, so that a packet of 1500 bytes fits when encapsulated.
SERVICE = Network("br1", "10.78.1", "fd78:eb:1", mtu=1600)
CLIENT = Network("br2", "10.78.2", "fd78:eb:2")
ROUTER_NUMBER = 1
CONTROLLER_NUMBER = 1
# What the router sends to the balancers.
VIP_IPV4 = "192.0.2.0/24"
VIP_IPV6 = "2001:db8:1::/64"

FRONTEND_KEEPALIVE = 8080
FRONTEND_PLAIN = 8081
PINGPONG_PORT = 9009


class Kind(Enum):
    """What a host is for."""

    WEB = "nginx in front of two web servers"
    BALANCER = "the XDP load balancer"
    BACKEND = "a web server behind it"
    CLIENT = "who asks it"
    LIGHT = "nothing but sshd and a control group"


@dataclass(frozen=True)
class Host:
    """One host of the lab. `number` makes its addresses and its MACs; it is 11 to 99."""

    name: str
    number: int
    kind: Kind

    @property
    def ipv4(self) -> str:
        return MANAGEMENT.addresses(self.number)[0]

    @property
    def ipv6(self) -> str:
        return MANAGEMENT.addresses(self.number)[1]

    @property
    def network(self) -> Network | None:
        """The segment that eth1 is on; hosts that have nothing to do with balancers have none."""
        if self.kind in (Kind.WEB, Kind.LIGHT):
            return None
        return CLIENT if self.kind is Kind.CLIENT else SERVICE

    @property
    def servers(self) -> tuple[str, ...]:
        """The nginx that run on it, by the name of their configuration."""
        if self.kind is Kind.WEB:
            return ("backend-a", "backend-b", "frontend")
        return ("backend",) if self.kind is Kind.BACKEND else ()

    @property
    def root(self) -> Path:
        """Where the host's root file system is put together, in its own mount namespace."""
        return STATE / "hosts" / self.name

    @property
    def pid_file(self) -> Path:
        return STATE / f"{self.name}.pid"

    @property
    def host_key(self) -> Path:
        return STATE / f"{self.name}.host_key"

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name}.log"


WEB = tuple(Host(f"web{number}", 10 + number, Kind.WEB) for number in (1, 2, 3))
BALANCERS = tuple(Host(f"lb{number}", 20 + number, Kind.BALANCER) for number in (1, 2))
BACKENDS = tuple(Host(f"backend{number}", 30 + number, Kind.BACKEND) for number in (1, 2, 3, 4))
CLIENTS = (Host("client1", 41, Kind.CLIENT),)
LIGHT = tuple(Host(f"app{number:02d}", 10 + number, Kind.LIGHT) for number in range(1, 13))
MANY = tuple(Host(f"host{number:02d}", 10 + number, Kind.LIGHT) for number in range(1, 51))
HOSTS = {"rollout": LIGHT, "metrics": LIGHT[:1], "report": LIGHT[:2], "bench": MANY}.get(
    WHICH, WEB + BALANCERS + BACKENDS + CLIENTS
)
# Whether the lab has balancers, a router in front of them, and clients behind it.
BALANCED = any(host.network for host in HOSTS)
