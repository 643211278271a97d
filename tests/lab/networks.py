# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's networks: three bridges in one namespace, a router in another, cables to the hosts.

Balancers and backends share a segment; clients are behind the router, which sends the services'
addresses to both balancers, each connection to one of them (RFC 2992).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import cgroups
from layout import (
    BALANCED,
    BALANCERS,
    CLIENT,
    CONTROLLER_NETNS,
    CONTROLLER_NUMBER,
    FABRIC_NETNS,
    IPV4_PREFIX,
    IPV6_PREFIX,
    LAB,
    MANAGEMENT,
    PASS_OBJECT,
    ROUTER_NETNS,
    ROUTER_NUMBER,
    SERVICE,
    VIP_IPV4,
    VIP_IPV6,
    Host,
    Kind,
    Network,
)
from shell import inside, run, wait_for


def make() -> None:
    """Everything but the hosts."""
    for name, netns in holders().items():
        hold(name, netns)
    inside(FABRIC_NETNS, "ip", "link", "set", "lo", "up")
    for network in (MANAGEMENT, SERVICE, CLIENT) if BALANCED else (MANAGEMENT,):
        bridge = ("type", "bridge", "stp_state", "0", "mcast_snooping", "0")
        inside(FABRIC_NETNS, "ip", "link", "add", network.bridge, *bridge)
        inside(FABRIC_NETNS, "ip", "link", "set", network.bridge, "mtu", str(network.mtu), "up")
    plug("controller", "eth0", holder_pid(CONTROLLER_NETNS), MANAGEMENT, CONTROLLER_NUMBER)
    if BALANCED:
        compile_pass()
        make_router()


def holders() -> dict[str, Path]:
    """The namespaces that no host has, by name, and what leads there."""
    found = {"fabric": FABRIC_NETNS, "controller": CONTROLLER_NETNS}
    return {**found, "router": ROUTER_NETNS} if BALANCED else found


def is_up() -> bool:
    """Whether the namespaces are still the lab's."""
    alive = set(cgroups.processes(cgroups.lab_cgroup()))
    return all(holder_pid(netns) in alive for netns in holders().values())


def connect(host: Host, pid: int) -> None:
    """The cables of a host whose init is `pid`, and its way to the other segments."""
    plug(host.name, "eth0", pid, MANAGEMENT, host.number)
    network = host.network
    if network is None:
        return
    plug(f"{host.name}-1", "eth1", pid, network, host.number)
    router4, router6 = network.addresses(ROUTER_NUMBER)
    for gateway in (router4, router6):
        inside(namespace(pid), "ip", "route", "add", "default", "via", gateway)
    if host.kind is Kind.BALANCER:
        # What native XDP sends out of a veth arrives only where an XDP program runs, too. To load
        # it, ip mounts a BPF file system where there is none: not on this machine.
        xdp = ("xdpdrv", "object", str(PASS_OBJECT), "section", "xdp")
        apart = ("unshare", "--mount", "--propagation", "private")
        inside(FABRIC_NETNS, *apart, "ip", "link", "set", f"{host.name}-1", *xdp)


def disconnect(host: Host) -> None:
    """Remove the cables of a host, also those of one that is gone; ones without a host go by themselves."""
    for name in (host.name, f"{host.name}-1"):
        inside(FABRIC_NETNS, "ip", "link", "delete", name, check=False)


def hold(name: str, netns: Path) -> None:
    """Start a process that keeps a network namespace; `netns` leads there while it runs."""
    script = f"echo 0 > {cgroups.make(name)}/cgroup.procs; exec unshare --net sleep infinity"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        ["sh", "-c", script], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    path = namespace(process.pid)
    ours = os.readlink("/proc/self/ns/net")
    wait_for(lambda: os.readlink(path) != ours, f"the {name} namespace")
    netns.symlink_to(path)


def holder_pid(netns: Path) -> int:
    return int(Path(os.readlink(netns)).parts[2])


def namespace(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net")


def plug(port: str, interface: str, pid: int, network: Network, number: int) -> None:
    """A cable from the network's bridge, where it is `port`, to the namespace of process `pid`.

    Checksums are computed by the sender: XDP sees a packet before any device would have done so.
    """
    there = namespace(pid)
    mac = f"02:eb:0f:00:{network.bridge[-1]:0>2}:{number:02d}"
    ends = ("peer", "name", interface, "address", mac, "mtu", str(network.mtu), "netns", str(pid))
    mtu = ("mtu", str(network.mtu))
    inside(FABRIC_NETNS, "ip", "link", "add", port, *mtu, "type", "veth", *ends)
    inside(FABRIC_NETNS, "ip", "link", "set", port, "master", network.bridge, "up")
    inside(there, "ip", "link", "set", "lo", "up")
    ipv4, ipv6 = network.addresses(number)
    inside(there, "ip", "address", "add", f"{ipv4}/{IPV4_PREFIX}", "dev", interface)
    if Path("/proc/net/if_inet6").exists():
        inside(there, "ip", "address", "add", f"{ipv6}/{IPV6_PREFIX}", "dev", interface, "nodad")
    if network is not MANAGEMENT:
        inside(there, "ethtool", "-K", interface, "tx", "off")
        inside(FABRIC_NETNS, "ethtool", "-K", port, "tx", "off")
    inside(there, "ip", "link", "set", interface, "up")


def make_router() -> None:
    """Forwards between clients and services, and the services' addresses to the balancers."""
    pid = holder_pid(ROUTER_NETNS)
    sysctls = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    hashes = ("net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1")
    inside(ROUTER_NETNS, "sysctl", "-qw", *sysctls, *hashes)
    plug("router-s", "eth0", pid, SERVICE, ROUTER_NUMBER)
    plug("router-c", "eth1", pid, CLIENT, ROUTER_NUMBER)
    for prefix, family in ((VIP_IPV4, 0), (VIP_IPV6, 1)):
        hops = [("nexthop", "via", SERVICE.addresses(host.number)[family]) for host in BALANCERS]
        inside(ROUTER_NETNS, "ip", "route", "add", prefix, *(word for hop in hops for word in hop))


def compile_pass() -> None:
    """A program that lets everything pass."""
    run("clang", "-O2", "-target", "bpf", "-c", str(LAB / "pass.bpf.c"), "-o", str(PASS_OBJECT))
