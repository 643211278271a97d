# SPDX-License-Identifier: GPL-3.0-or-later
"""100,000 packets that nobody would send, from a seed: PACKETS_SEED=7 for another run."""

from __future__ import annotations

import os
import random
from collections import Counter

import judge
import packets
import plane
import tables
from conftest import Load
from mutate import mutated
from nat import Nat
from network import FAR, NARROW, NEAR
from packets import CLIENTS, FAMILIES, VIPS, Client, client, from_router, ip_layer
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

COUNT = 100_000
SEED = int(os.environ.get("PACKETS_SEED", "20261121"))
SHOWN = 10  # wrong ones, in the message
DSR, IPIP, SMALL, ACROSS = 81, 82, 83, 84  # service ports
ANYWHERE = {4: "192.0.2.20", 6: "2001:db8::20"}  # a VIP with every port


def declare(balancer: plane.Balancer, family: int) -> set[tuple[int, int]]:
    """A service of every kind, in slots of every kind; nat's are there."""
    base = {4: 100, 6: 200}[family]
    number = base
    declared = {(judge.TCP, 80), (judge.UDP, 80)}
    for protocol in (judge.TCP, judge.UDP):
        for port, mode, host, backends in (
            (DSR, tables.DSR, FAR[0], family),
            (IPIP, tables.IPIP, NEAR[0], family),
            (SMALL, tables.IPIP, NARROW, family),
            (ACROSS, tables.IPIP, NEAR[1], 6),
        ):
            number += 10
            balancer.service(number, VIPS[family], port, protocol, mode)
            balancer.backend(number, number, host, backends)
            balancer.backend(number + 1, number, NEAR[5], backends)
            slots = (tables.slot(number), tables.slot(number, number + 1), tables.slot(number + 1))
            ring = b"".join(slots[at % 3] for at in range(tables.RING_SLOTS))
            balancer.ring(number, ring)
            declared.add((protocol, port))
    balancer.service(base, ANYWHERE[family], 0, tables.UDP, tables.DSR)
    balancer.backend(base, base, NEAR[2], family)
    balancer.ring(base, tables.slot(base))
    return declared


def headed(packet: Packet) -> Packet:
    """With IPv6 extension headers in between."""
    network = packets.network_layer(packet)
    transport = network.payload.copy()
    network.remove_payload()
    chain = network / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=3) / IPv6ExtHdrDestOpt()
    return from_router(chain / transport)


def quoting(family: int, inner: Packet) -> list[Packet]:
    """Errors about an answer of a backend, or about a packet of the balancer's own."""
    network = ip_layer(family, CLIENTS[family][:-1] + "99", inner.src)
    quoted = Raw(bytes(inner)[:88])
    if family == 4:
        kinds = [ICMP(type=3, code=4, nexthopmtu=1400), ICMP(type=3, code=1), ICMP(type=11)]
    else:
        kinds = [ICMPv6PacketTooBig(mtu=1400), ICMPv6DestUnreach(code=4)]
    return [from_router(network / kind / quoted) for kind in kinds]


def seeds(nat: Nat) -> list[bytes]:
    """Good packets of every kind."""
    family = nat.family
    who = client(family)
    made: list[Packet] = []
    for port in (80, DSR, IPIP, SMALL, ACROSS):
        for flags in ("S", "A", "PA", "FA", "R"):
            made.append(who.to("tcp", b"some data", port=port, flags=flags))
        made += [who.to("udp", b"question", port=port), who.to("udp", b"q", port=port, chksum=0)]
        made.append(who.to("tcp", bytes(1450), port=port))
        answer = Client(family, VIPS[family], port).to(
            "tcp", b"answer", vip=who.address, port=who.port
        )
        made += quoting(family, packets.network_layer(answer))
    made.append(who.to("udp", b"x", vip=ANYWHERE[family], port=4711))
    made.append(who.to("tcp", b"ssh", port=22))
    if family == 4:
        made.append(from_router(ip_layer(4, who.address, VIPS[4]) / ICMP() / Raw(b"ping" * 9)))
    else:
        echo = ICMPv6EchoRequest(id=1, data=b"ping" * 9)
        made.append(from_router(ip_layer(6, who.address, VIPS[6]) / echo))
        made += [headed(who.to("tcp", b"data", port=port)) for port in (80, DSR, IPIP)]
        made.append(from_router(ip_layer(6, who.address, VIPS[6]) / IPv6ExtHdrDestOpt() / echo))
    open_ = nat.connection(client(family, 1)).open()
    asked = nat.connection(client(family, 2), "udp")
    asked.send(b"question")
    asked.answer(b"answer")
    fresh = nat.connection(client(family, 2))
    fresh.send(flags="S")
    for connection in (open_, asked, fresh):
        made += [connection.from_client(b"data"), connection.from_backend(b"data")]
        sent = packets.network_layer(packets.parsed(connection.send(b"data")))
        made += quoting(family, sent)
    made += [open_.from_backend(flags=flags) for flags in ("SA", "FA", "RA")]
    return [bytes(packet) for packet in made]


def test_no_packet_is_too_strange(load: Load) -> None:
    print(f"PACKETS_SEED={SEED}")
    chance = random.Random(SEED)
    with load() as balancer:
        balancer.configure(udp_grace=3600)
        services, own, good = {}, set(), []
        for family in FAMILIES:
            nat = Nat(balancer, family)
            services[judge.address(VIPS[family])] = frozenset(declare(balancer, family))
            services[judge.address(ANYWHERE[family])] = frozenset({(judge.UDP, 0)})
            own.add(judge.address(nat.own))
            good += seeds(nat)
        site = judge.Site(services, frozenset(own), balancer.settings.nat_ports)
        balancer.forget_counters()
        verdicts: Counter[str] = Counter()
        complaints: list[str] = []
        for number in range(COUNT):
            frame = mutated(chance, good)
            result = balancer.run(frame)
            verdicts[result.word] += 1
            complaint = judged(site, frame, result)
            if complaint:
                complaints.append(f"packet {number} {complaint}; it was {frame.hex()}")
        reasons = balancer.reasons()
    print(verdicts, reasons)
    shown = "\n".join(complaints[:SHOWN])
    assert not complaints, f"{len(complaints)} of {COUNT} packets, seed {SEED}:\n{shown}"
    assert verdicts["ABORTED"] == 0
    assert all(verdicts[word] > COUNT // 100 for word in ("PASS", "DROP", "TX", "REDIRECT"))
    met = ("PASS_FOREIGN", "PASS_OPTIONS", "PASS_FRAGMENT", "PASS_ICMP", "PASS_MALFORMED")
    met += ("DROP_NO_CONNECTION", "DROP_TTL", "ECHO_REPLIED", "TOO_BIG_SENT", "ICMP_FORWARDED")
    assert [reason for reason in met if not reasons.get(reason)] == []


def judged(site: judge.Site, frame: bytes, result: plane.Result) -> str:
    """What is wrong with a verdict; empty if nothing is."""
    if result.word == "PASS":
        return "" if result.data == frame else f"passed, but changed to {result.data.hex()}"
    if not site.may_touch(frame):
        return f"is not ours, and got {result.word}"
    if result.word == "DROP":
        return ""
    if result.word not in ("TX", "REDIRECT"):
        return f"verdict {result.word}"
    wrong = judge.what_is_wrong(frame, result.data)
    return f"got {result.word}, {wrong}: {result.data.hex()}" if wrong else ""
