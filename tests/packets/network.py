# SPDX-License-Identifier: GPL-3.0-or-later
"""A network namespace in which bpf_fib_lookup has something to say; it is gone when this process is.

    in0   the interface that packets come in on: a backend there is reached by XDP_TX
    out0  another one: a backend there is reached by redirection

Every neighbour is written down by hand; nothing is ever sent.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
MS_REC_PRIVATE = 0x4000 | 0x40000  # linux/mount.h

IN_MAC, OUT_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
# The router through which clients, and everything else, is reached.
CLIENT_MAC = "02:00:00:01:00:fe"
# The router behind out0.
ROUTER_MAC = "02:00:00:02:00:fe"


@dataclass(frozen=True)
class Host:
    """A backend: where it is, and what a frame to it looks like."""

    ipv4: str
    ipv6: str
    source_mac: str
    mac: str
    tx: bool  # whether it is reached through the interface that packets come in on
    mtu: int = 1500

    def address(self, family: int) -> str:
        return self.ipv4 if family == 4 else self.ipv6


def _on_link(wire: int, number: int) -> Host:
    return Host(
        ipv4=f"10.0.{wire}.{number}",
        ipv6=f"fd00:{wire}::{number}",
        source_mac=(IN_MAC, OUT_MAC)[wire - 1],
        mac=f"02:00:00:0{wire}:00:{number}",
        tx=wire == 1,
    )


NEAR = tuple(_on_link(1, number) for number in range(11, 19))
FAR = tuple(_on_link(2, number) for number in range(11, 19))
ROUTED = Host("10.0.3.11", "fd00:3::11", OUT_MAC, ROUTER_MAC, tx=False)
NARROW = Host("10.0.4.11", "fd00:4::11", OUT_MAC, ROUTER_MAC, tx=False, mtu=1400)
SILENT = Host("10.0.2.99", "fd00:2::99", OUT_MAC, "", tx=False)  # never resolved
UNREACHABLE = Host("10.0.9.11", "fd00:9::11", "", "", tx=False)  # no route

# Clients on a narrow path, and some that no route leads to.
NARROW_CLIENTS = {4: "198.18.1.7", 6: "2001:db8:1::7"}
LOST_CLIENTS = {4: "198.18.9.7", 6: "2001:db8:9::7"}

_LINKS = f"""
link set lo up
link add in0 address {IN_MAC} type veth peer name in0p
link add out0 address {OUT_MAC} type veth peer name out0p
link set in0p up
link set out0p up
link set in0 up
link set out0 up
addr add 10.0.1.1/24 dev in0
addr add 10.0.2.1/24 dev out0
addr add fd00:1::1/64 dev in0 nodad
addr add fd00:2::1/64 dev out0 nodad
neigh replace 10.0.1.254 lladdr {CLIENT_MAC} dev in0 nud permanent
neigh replace fd00:1::fe lladdr {CLIENT_MAC} dev in0 nud permanent
neigh replace 10.0.2.254 lladdr {ROUTER_MAC} dev out0 nud permanent
neigh replace fd00:2::fe lladdr {ROUTER_MAC} dev out0 nud permanent
route add default via 10.0.1.254 dev in0
route add 10.0.3.0/24 via 10.0.2.254 dev out0
route add 10.0.4.0/24 via 10.0.2.254 dev out0 mtu lock {NARROW.mtu}
route add unreachable 10.0.9.0/24
route add 198.18.1.0/24 via 10.0.1.254 dev in0 mtu lock {NARROW.mtu}
route add unreachable 198.18.9.0/24
-6 route add default via fd00:1::fe dev in0
-6 route add fd00:3::/64 via fd00:2::fe dev out0
-6 route add fd00:4::/64 via fd00:2::fe dev out0 mtu lock {NARROW.mtu}
-6 route add unreachable fd00:9::/64
-6 route add 2001:db8:1::/64 via fd00:1::fe dev in0 mtu lock {NARROW.mtu}
-6 route add unreachable 2001:db8:9::/64
"""


def enter_private_namespaces() -> None:
    """Leaves the host's mounts and its network, for good. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    hosts = os.stat("/proc/self/ns/net").st_ino
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET) or libc.mount(
        b"none", b"/", None, MS_REC_PRIVATE, None
    ):
        raise OSError(ctypes.get_errno(), "no private namespaces: the suite needs root")
    assert os.stat("/proc/self/ns/net").st_ino != hosts


def ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True)


@contextmanager
def not_forwarding() -> Iterator[None]:
    """What an operator forgets: in0 does not route."""
    settings = [Path(f"/proc/sys/net/ipv{family}/conf/in0/forwarding") for family in (4, 6)]
    for setting in settings:
        setting.write_text("0")
    try:
        yield
    finally:
        for setting in settings:
            setting.write_text("1")


def set_up() -> None:
    """Interfaces, routes and neighbours. Forwarding is on: bpf_fib_lookup refuses without it."""
    for line in _LINKS.strip().splitlines():
        ip(line)
    for host in (*NEAR, *FAR):
        device = "in0" if host.tx else "out0"
        for address in (host.ipv4, host.ipv6):
            ip(f"neigh replace {address} lladdr {host.mac} dev {device} nud permanent")
    for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", setting).write_text("1")
