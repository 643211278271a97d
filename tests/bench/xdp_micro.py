# SPDX-License-Identifier: GPL-3.0-or-later
"""Nanoseconds a packet, by BPF_PROG_TEST_RUN: the balancer beside the least that could be done.

A program of our own runs first each time: it undoes what the run before did to the packet, puts the
next flow's address and port into it, and tail-calls what is measured. Both sides pay for that.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from balancer import Balancer
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw
from topology import Node

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import libbpf, maps, pins, test_run
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Fd

FRAME = 96  # bytes, as in xdp_floor.bpf.c
PORT = 80
TCP_PROTOCOL = 6
RUNS = 1 << 20  # of one measurement
MANY = 1 << 16
MOST = 1 << 20
FLOORS = {
    ("dsr", 4): "floor_dsr4",
    ("dsr", 6): "floor_dsr6",
    ("ipip", 4): "floor_ipip4",
    ("ipip", 6): "floor_ipip6",
    ("nat", 4): "floor_nat4",
    ("nat", 6): "floor_nat6",
}
OTHERS = ("restore", "floor_pass", "floor_drop", "floor_reflect", "send", "sink")
MAPS = ("scenes", "clients", "targets", "vips4", "vips6", "measured", "arrived")
CLIENTS = {4: "198.18.0.0", 6: "fd98::"}
NOBODY = {4: "0.0.0.0", 6: "fd98::"}
TX, REDIRECT = 3, 4
LIVE_FRAMES = 1 << 1  # BPF_F_TEST_XDP_LIVE_FRAMES
BATCH = 64
SYN, SYN_ACK, ACK = "S", "SA", "A"


@dataclass(frozen=True)
class Flow:
    """A client: the last word of its address, and its port."""

    word: int
    port: int

    def address(self, family: int) -> str:
        return str(ip_address(CLIENTS[family]) + self.word)

    def packed(self, family: int) -> bytes:
        """As the map of clients has it."""
        word = ip_address(self.address(family)).packed[-4:]
        high, low = struct.unpack("=HH", word)
        total = high + low
        return (
            word
            + struct.pack("!H", self.port)
            + struct.pack("=H", (total & 0xFFFF) + (total >> 16))
        )


def flows(count: int) -> list[Flow]:
    """The same different clients each time."""
    draw = random.Random(count)
    words = draw.sample(range(1, 1 << 17), min(count, 1 << 16))
    return [Flow(words[n % len(words)], 1024 + n % 60000) for n in range(count)]


class Harness:
    """The floor's object, loaded, and the balancer's program beside it."""

    def __init__(self, opened: libbpf.Object, balancer: Balancer, ifindex: int) -> None:
        self.opened = opened
        self.ifindex = ifindex
        self.ours = pins.get(str(balancer.pins / "xdp_lb"))
        self.programs = {name: opened.program_fd(name) for name in (*OTHERS, *FLOORS.values())}
        self.maps = {name: opened.map_fd(name) for name in MAPS}

    def program(self, name: str) -> Fd:
        """A floor by its name, or what is measured: ours."""
        return self.ours if name == "ours" else self.programs[name]

    def stage(self, packet: bytes, family: int, who: Sequence[Flow], ifindex: int = 0) -> None:
        """From now on the packet, which came from NOBODY, comes from these clients in turn.

        `who`: a power of two of them; `ifindex`: of the interface that `send` puts it on.
        """
        source = 26 if family == 4 else 34
        scene = packet + struct.pack("=IIII", len(who) - 1, source, ifindex, 0)
        maps.update(self.maps["scenes"], struct.pack("=I", 0), scene)
        for number, flow in enumerate(who):
            maps.update(self.maps["clients"], struct.pack("=I", number), flow.packed(family))

    def aim(self, vip: str, source: str, backends: Sequence[str], links: Sequence[bytes]) -> None:
        """What the floors balance, and to whom."""
        address = ip_address(vip)
        key = address.packed + struct.pack("!HBx", PORT, TCP_PROTOCOL)
        maps.update(self.maps[f"vips{address.version}"], key, struct.pack("=I", 1))
        for number, (backend, link) in enumerate(zip(backends, links)):
            ends = (ip_address(end).packed.ljust(16, b"\0") for end in (source, backend))
            maps.update(self.maps["targets"], struct.pack("=I", number), b"".join(ends) + link)

    def ns(self, name: str, packet: bytes) -> float:
        """Nanoseconds a run, with what restores the packet, over all flows in turn.

        Raises RuntimeError when the last packet would not have been sent.
        """
        number = struct.pack("=I", self.program(name).number)
        maps.update(self.maps["measured"], struct.pack("=I", 0), number)
        ran = self._run(self.programs["restore"], packet, RUNS)
        if ran.verdict not in (TX, REDIRECT):
            raise RuntimeError(f"{name} does not forward: verdict {ran.verdict}")
        return ran.duration

    def transmit(self, packet: bytes, count: int) -> None:
        """Send so many real frames from the current network namespace, as fast as they are taken."""
        number = struct.pack("=I", self.programs["send"].number)
        maps.update(self.maps["measured"], struct.pack("=I", 0), number)
        live = {"want_data": False, "flags": LIVE_FRAMES, "batch": BATCH}
        test_run.run(self.programs["restore"], packet, count, **live)

    def arrivals(self) -> int:
        """How many frames `sink` has seen, on all CPUs."""
        size = 8 * maps.possible_cpus()
        value = maps.lookup(self.maps["arrived"], struct.pack("=I", 0), size) or b""
        return sum(struct.unpack(f"={len(value) // 8}Q", value))

    def bare_ns(self, name: str, packet: bytes) -> float:
        """Nanoseconds a run of a program that leaves its packet alone."""
        return self._run(self.program(name), packet, RUNS).duration

    def send(self, packet: bytes) -> tuple[int, bytes]:
        """The verdict on one packet, and what became of it."""
        ran = self._run(self.ours, packet, 1, want_data=True)
        return ran.verdict, ran.data

    def _run(
        self, program: Fd, packet: bytes, repeat: int, want_data: bool = False
    ) -> test_run.Run:
        context = test_run.xdp_context(len(packet), self.ifindex)
        return test_run.run(program, packet, repeat, context, want_data)


def ifindex(node: Node, interface: str) -> int:
    """An interface's number in its box."""
    return int(json.loads(node.run("ip", "-j", "link", "show", "dev", interface))[0]["ifindex"])


@contextmanager
def harness(built: Path, balancer: Balancer) -> Iterator[Harness]:
    """Everything loaded; packets seem to come in on the balancer's eth0."""
    with libbpf.open_object(str(built)) as opened:
        opened.load()
        yield Harness(opened, balancer, ifindex(balancer.node, "eth0"))


def tcp(
    balancer: Balancer, source: str, to: str, sport: int, flags: str = ACK, **more: int
) -> bytes:
    """A frame of FRAME bytes to the balancer's eth0."""
    family = ip_address(to).version
    network: Packet = IP(src=source, dst=to) if family == 4 else IPv6(src=source, dst=to)
    head = Ether(src="02:eb:f0:00:00:01", dst=balancer.node.mac) / network
    packet = head / TCP(**{"sport": sport, "dport": PORT, "flags": flags, **more})
    return bytes(packet / Raw(bytes(FRAME - len(packet))))


def foreign(balancer: Balancer) -> dict[str, bytes]:
    """Packets that are nobody's service."""
    arp = Ether(src="02:eb:f0:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(pdst=balancer.node.ipv4)
    return {
        "IPv4": tcp(balancer, "198.18.0.1", "203.0.113.5", 4000),
        "IPv6": tcp(balancer, "fd98::1", "2001:db8:f::5", 4000),
        "to the host itself": tcp(balancer, "198.18.0.1", balancer.node.ipv4, 4000),
        "ARP": bytes(arp / Raw(bytes(18))),
    }


@dataclass(frozen=True)
class Offsets:
    """Where a frame of a family has its addresses and ports."""

    source: slice
    destination: slice
    source_port: slice
    destination_port: slice


OFFSETS = {
    4: Offsets(slice(26, 30), slice(30, 34), slice(34, 36), slice(36, 38)),
    6: Offsets(slice(22, 38), slice(38, 54), slice(54, 56), slice(56, 58)),
}


def establish(
    bench: Harness, balancer: Balancer, vip: str, source: str, who: Sequence[Flow]
) -> None:
    """Three packets for each client: the handshake of a connection through nat.

    Frames are patched, not built: there are many, and nat changes checksums without looking at them.
    """
    family = ip_address(vip).version
    at = OFFSETS[family]
    syn = bytearray(tcp(balancer, NOBODY[family], vip, 0, SYN, seq=1))
    answer = bytearray(tcp(balancer, NOBODY[family], source, PORT, SYN_ACK, seq=100, ack=2))
    ack = bytearray(tcp(balancer, NOBODY[family], vip, 0, ACK, seq=2, ack=101))
    for flow in who:
        client = ip_address(flow.address(family)).packed
        for frame in (syn, ack):
            frame[at.source], frame[at.source_port] = client, struct.pack("!H", flow.port)
        verdict, sent = bench.send(bytes(syn))
        if verdict not in (TX, REDIRECT):
            raise RuntimeError(f"nat answers a SYN with verdict {verdict}")
        answer[at.source] = sent[at.destination]
        answer[at.destination_port] = sent[at.source_port]
        bench.send(bytes(answer))
        bench.send(bytes(ack))
