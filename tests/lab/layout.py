# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is made of: names, addresses and paths. Nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LAB = Path(__file__).resolve().parent
REPOSITORY = LAB.parents[1]
FILES = LAB / "files"

# Everything the lab has on this machine is below STATE, or in the cgroup of the same name.
NAME = "ebpf-fleet-lab"
STATE = Path("/run") / NAME
SSH_CONFIG = STATE / "ssh_config"
KNOWN_HOSTS = STATE / "known_hosts"
USER_KEY = STATE / "id_ed25519"
LOGS = STATE / "log"
SSH_MASTERS = STATE / "ssh"
FABRIC_NETNS = STATE / "fabric.netns"
CONTROLLER_NETNS = STATE / "controller.netns"
FABRIC_READY = STATE / "fabric.ready"

IPV4_PREFIX = 24
IPV6_PREFIX = 64
CONTROLLER_IPV4 = "10.77.0.1"
CONTROLLER_MAC = "02:eb:0f:00:00:01"
CONTROLLER_IPV6 = "fd77:eb:f::1"

FRONTEND_KEEPALIVE = 8080
FRONTEND_PLAIN = 8081
PINGPONG_PORT = 9009


@dataclass(frozen=True)
class Host:
    """One host of the lab. `number` makes its addresses and its MAC."""

    name: str
    number: int

    @property
    def ipv4(self) -> str:
        return f"10.77.0.{10 + self.number}"

    @property
    def ipv6(self) -> str:
        return f"fd77:eb:f::{10 + self.number}"

    @property
    def mac(self) -> str:
        return f"02:eb:0f:00:00:{10 + self.number:02d}"

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


HOSTS = (Host("web1", 1), Host("web2", 2), Host("web3", 3))
