# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that the load balancer is tested and measured in; nothing of it outlives the process that made it.

    client1 ---+                            +--- balancer1, balancer2
               router (bridge: the servers' LAN)
    client2 ---+                            +--- backend1 ... backend4

Each box is a network namespace, each line a veth pair that is `eth0` at its outer end and has the box's name at the
router's. The router forwards between the clients' links and the servers' LAN; a virtual address is routed to a balancer
and lives, where the forwarding needs it, on the backends' `lo`. Checksums are made in software before a packet leaves:
a wrong one is seen by whoever receives it.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

HERE = Path(__file__).resolve().parent
CLONE_NEWNET = 0x40000000  # linux/sched.h
LAN4, LAN6 = "10.2.0", "fd02:"
FAR4, FAR6 = (
    "10.3.0",
    "fd03:",
)  # more addresses of the backends, behind the router for the balancers
UNANSWERED = "198.18.0.0/15"  # the router drops what goes there (RFC 2544): sources of floods
UNANSWERED6 = "fd98::/16"
FAMILIES = (4, 6)

SYSCTLS = {
    "net.ipv4.conf.all.rp_filter": 0,
    "net.ipv4.conf.default.rp_filter": 0,
    "net.ipv4.conf.all.send_redirects": 0,
    "net.ipv4.conf.default.send_redirects": 0,
    "net.ipv4.conf.all.accept_redirects": 0,
    "net.ipv6.conf.default.accept_dad": 0,
    "net.ipv6.conf.default.dad_transmits": 0,
    "net.ipv6.conf.default.accept_ra": 0,
    "net.ipv6.conf.default.accept_redirects": 0,
    "net.ipv6.conf.default.router_solicitations": 0,
    # No tail loss probes (RFC 8985): on a busy machine a backend repeats its FIN after a few milliseconds, and resets what
    # acknowledges the second one, since the first acknowledgement has ended the connection. A reset that nobody notices.
    "net.ipv4.tcp_early_retrans": 0,
    "net.ipv4.tcp_rto_min_us": 1_000_000,  # nor does it repeat it after 200 ms
}

# Without it the kernel does not say where packets from elsewhere would go (bpf_fib_lookup).
FORWARDS = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}

_libc = ctypes.CDLL(None, use_errno=True)


class TopologyError(RuntimeError):
    """Something of the network could not be made."""


@contextmanager
def entered(path: str) -> Iterator[None]:
    """Be in the network namespace behind `path`: sockets made here belong to it for life."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(path, "rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True)
class Node:
    """One box. `ipv4` and `ipv6` are its addresses on eth0; the router has those of the servers' LAN."""

    name: str
    process: subprocess.Popen[bytes]
    ipv4: str
    ipv6: str
    mac: str
    far: dict[int, str] = field(default_factory=dict)

    @property
    def netns(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    def address(self, family: int) -> str:
        """Its address of a family, 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6

    def entered(self) -> object:
        """The calling thread is in the box while the context lasts."""
        return entered(self.netns)

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs something in the box, and kills it when its parent dies."""
        die = ["setpriv", "--pdeathsig", "KILL"]
        return ["nsenter", f"--net={self.netns}", *die, "--", *arguments]

    def run(self, *arguments: str, check: bool = True) -> str:
        """What a command in the box printed. Raises TopologyError with what it complained about."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if check and done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise TopologyError(f"{self.name}: {' '.join(arguments)}: {said}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Commands of ip(8), in one go."""
        text = "".join(f"{line}\n" for line in lines)
        command = self.command("ip", "-batch", "-")
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TopologyError(f"{self.name}: {done.stderr.strip()} in:\n{text}")

    def sysctl(self, values: dict[str, object]) -> None:
        """Settings below net; those that the kernel does not have are left out."""
        lines = [
            f"[ ! -e /proc/sys/{path} ] || echo '{value}' >/proc/sys/{path}"
            for path, value in ((name.replace(".", "/"), value) for name, value in values.items())
        ]
        self.run("sh", "-ec", "\n".join(lines))

    def counter(self, name: str) -> int:
        """A counter of /proc/net/snmp, snmp6 or netstat by its name there, such as Tcp.OutRsts."""
        group, _dot, member = name.partition(".")
        base = Path(f"/proc/{self.process.pid}/net")
        for line in (base / "snmp6").read_text().splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
        for file in ("snmp", "netstat"):
            lines = (base / file).read_text().splitlines()
            for heads, values in zip(lines[::2], lines[1::2]):
                if heads.startswith(f"{group}:") and member in heads.split():
                    return int(values.split()[heads.split().index(member)])
        raise LookupError(f"{self.name} has no counter {name}")

    def interface(self, interface: str = "eth0") -> dict[str, int]:
        """Packets and bytes of an interface so far: rx_packets, tx_bytes, ..."""
        shown = json.loads(self.run("ip", "-s", "-j", "link", "show", "dev", interface))[0]
        counts = shown["stats64"]
        return {
            f"{way}_{what}": int(counts[way][what])
            for way in ("rx", "tx")
            for what in ("packets", "bytes")
        }


@dataclass(frozen=True)
class Topology:
    """All boxes, and what may be changed between tests."""

    router: Node
    clients: tuple[Node, ...]
    balancers: tuple[Node, ...]
    backends: tuple[Node, ...]
    _numbers: Iterator[int] = field(default_factory=count)

    def number(self) -> int:
        """One that was not given out before."""
        return next(self._numbers)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self.router, *self.clients, *self.balancers, *self.backends)

    def route(self, vip: str, node: Node) -> None:
        """Packets to a virtual address go to this box from now on."""
        family = ipaddress.ip_address(vip).version
        length = {4: 32, 6: 128}[family]
        self.router.ip(f"route replace {vip}/{length} via {node.address(family)}")

    def unroute(self, vip: str) -> None:
        self.router.run("ip", "route", "del", f"{vip}/{_length(vip)}", check=False)

    @contextmanager
    def hosted(self, vip: str, nodes: Sequence[Node]) -> Iterator[None]:
        """The boxes take packets to the address as their own and answer from it."""
        for node in nodes:
            node.ip(f"addr add {vip}/{_length(vip)} dev lo {_nodad(vip)}")
        try:
            yield
        finally:
            for node in nodes:
                node.run("ip", "addr", "del", f"{vip}/{_length(vip)}", "dev", "lo", check=False)

    def link_mtu(self, node: Node, mtu: int, both_ends: bool = False) -> None:
        """What the router may send to the box in one piece; the box itself only learns it if told."""
        self.router.ip(f"link set dev {node.name} mtu {mtu}")
        if both_ends:
            node.ip(f"link set dev eth0 mtu {mtu}")


def _length(address: str) -> int:
    return {4: 32, 6: 128}[ipaddress.ip_address(address).version]


def _nodad(address: str) -> str:
    return "nodad" if ":" in address else ""


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Poll gently; whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def namespace() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is alone in a new network namespace, and dies with this one."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"],
        stdin=subprocess.DEVNULL,
    )
    try:
        ours = os.readlink("/proc/self/ns/net")

        def apart() -> bool:
            with suppress(FileNotFoundError, PermissionError):
                # the program that unshare becomes, not only the namespace: setpriv's is still ours
                return os.readlink(f"/proc/{process.pid}/ns/net") != ours
            return False

        if not wait_for(apart):
            raise TopologyError("no network namespace could be made: root?")
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def node(name: str, ipv4: str, ipv6: str, number: int, **more: dict[int, str]) -> Iterator[Node]:
    with namespace() as process:
        made = Node(name, process, ipv4, ipv6, f"02:eb:f0:00:00:{number:02x}", **more)
        made.sysctl(dict(SYSCTLS))
        made.ip("link set lo up")
        yield made


def compile_peer(directory: Path) -> Path:
    """The programs that the other ends of the veth pairs need."""
    made = directory / "peer.bpf.o"
    multiarch = subprocess.run(
        ["cc", "-print-multiarch"], capture_output=True, text=True, check=True
    )
    include = f"/usr/include/{multiarch.stdout.strip() or os.uname().machine}"
    flags = ["-g", "-O2", "-target", "bpf", "-Wall", "-Werror", "-idirafter", include]
    subprocess.run(["clang", *flags, "-c", str(HERE / "peer.bpf.c"), "-o", str(made)], check=True)
    return made


def xdp(node: Node, interface: str, peer: Path | None, program: str = "") -> None:
    """Attach one of the programs of `peer` in native mode, or with None detach what is there."""
    words = ["object", str(peer), "section", f"xdp/{program}"] if peer else ["off"]
    node.run("ip", "link", "set", "dev", interface, "xdpdrv", *words)


@contextmanager
def network(clients: int = 2, balancers: int = 2, backends: int = 4) -> Iterator[Topology]:
    """Everything up, forwarding and checksummed in software; no virtual address is routed anywhere yet."""
    with ExitStack() as stack:
        enter = stack.enter_context
        router = enter(node("router", f"{LAN4}.1", f"{LAN6}:1", 1))
        router.sysctl(
            {
                **FORWARDS,
                "net.bridge.bridge-nf-call-iptables": 0,
                "net.bridge.bridge-nf-call-ip6tables": 0,
                "net.bridge.bridge-nf-call-arptables": 0,
                "net.ipv4.icmp_ratelimit": 0,
                "net.ipv4.icmp_msgs_per_sec": 100000,
                "net.ipv6.icmp.ratelimit": 0,
            }
        )
        router.ip(
            "link add br0 type bridge stp_state 0 mcast_snooping 0",
            f"link set br0 address {router.mac} up",
            f"addr add {router.ipv4}/24 dev br0",
            f"addr add {router.ipv6}/64 dev br0 nodad",
            f"route add blackhole {UNANSWERED}",
            f"route add blackhole {UNANSWERED6}",
        )
        made = Topology(
            router,
            tuple(enter(_client(router, number)) for number in range(1, clients + 1)),
            tuple(enter(_balancer(router, number)) for number in range(1, balancers + 1)),
            tuple(enter(_backend(router, number)) for number in range(1, backends + 1)),
        )
        with tempfile.TemporaryDirectory(prefix="ebpf-fleet-test-") as directory:
            _attach_peers(made, compile_peer(Path(directory)))
        for each in made.nodes:
            keep_order(each)
        yield made


def _attach_peers(made: Topology, peer: Path) -> None:
    for balancer in made.balancers:
        # a frame that native XDP sends into a veth pair arrives only where XDP runs as well
        xdp(made.router, balancer.name, peer, "pass")
    for backend in made.backends:
        # the tunnel's end: kernels for small machines come without the ipip and ip6tnl drivers
        xdp(backend, "eth0", peer, "decapsulate")


def keep_order(node: Node) -> None:
    """A flow's packets are received in the order in which they were sent, as they are over a wire.

    A veth pair hands a packet to the CPU that sends it, and a process that moves from one to another
    sends its FIN past its data: TCP repairs that, and may have to answer what comes twice with a reset.
    Receive packet steering lets one CPU receive all packets of a flow.
    """
    every = f"{(1 << min(os.cpu_count() or 1, 32)) - 1:x}"
    queues = "/sys/class/net/*/queues/rx-*/rps_cpus"
    script = f"mount -t sysfs sysfs /sys; for each in {queues}; do echo {every} >$each; done"
    node.run("unshare", "--mount", "sh", "-ec", script)


def _plug(router: Node, made: Node, ipv4: str, ipv6: str, *commands: str) -> None:
    """Connect a box to the router; `commands` say what the router does with its end."""
    router.ip(
        f"link add {made.name} type veth peer name eth0 address {made.mac} netns {made.process.pid}",
        *commands,
        f"link set {made.name} up",
    )
    made.ip(
        f"addr add {made.ipv4}/24 dev eth0",
        f"addr add {made.ipv6}/64 dev eth0 nodad",
        "link set eth0 up",
        f"route add default via {ipv4}",
        f"route add default via {ipv6}",
    )
    router.run("ethtool", "-K", made.name, "tx", "off")
    made.run("ethtool", "-K", "eth0", "tx", "off")


@contextmanager
def _client(router: Node, number: int) -> Iterator[Node]:
    """A client on a link of its own, so that its MTU can be its own too."""
    net4, net6 = f"10.1.{number}", f"fd01:{number}:"
    with node(f"client{number}", f"{net4}.2", f"{net6}:2", 0x10 + number) as made:
        made.sysctl({"net.ipv4.ip_local_port_range": "10000 65000", "net.ipv4.tcp_tw_reuse": 1})
        here = (
            f"addr add {net4}.1/24 dev {made.name}",
            f"addr add {net6}:1/64 dev {made.name} nodad",
        )
        _plug(router, made, f"{net4}.1", f"{net6}:1", *here)
        yield made


@contextmanager
def _balancer(router: Node, number: int) -> Iterator[Node]:
    last = 1 + number
    with node(f"balancer{number}", f"{LAN4}.{last}", f"{LAN6}:{last}", 0x20 + number) as made:
        made.sysctl(dict(FORWARDS))
        bridge = f"link set {made.name} master br0"
        _plug(router, made, router.ipv4, router.ipv6, bridge)
        yield made


@contextmanager
def _backend(router: Node, number: int) -> Iterator[Node]:
    last = 10 + number
    far = {4: f"{FAR4}.{last}", 6: f"{FAR6}:{last}"}
    own = (f"{LAN4}.{last}", f"{LAN6}:{last}")
    with node(f"backend{number}", *own, 0x30 + number, far=far) as made:
        made.sysctl({"net.ipv4.conf.all.arp_ignore": 1, "net.ipv4.conf.all.arp_announce": 2})
        _plug(router, made, router.ipv4, router.ipv6, f"link set {made.name} master br0")
        made.ip(f"addr add {far[4]}/32 dev lo", f"addr add {far[6]}/128 dev lo nodad")
        router.ip(f"route add {far[4]}/32 via {own[0]}", f"route add {far[6]}/128 via {own[1]}")
        yield made
