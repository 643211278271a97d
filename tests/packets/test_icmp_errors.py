# SPDX-License-Identifier: GPL-3.0-or-later
"""ICMP errors about packets of dsr and ipip: what they quote says whose they are."""

from __future__ import annotations

import expect
import packets
import plane
import pytest
import tables
from errors import HEADER, LEAST, MESSAGES, answer_of, error, untouched
from expect import STATELESS, Mode
from network import FAR, NEAR
from packets import PORT, VIPS, Client, client, ip_layer
from scapy.layers.inet import IP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.packet import Raw
from test_moved import NEW, NEXT, OLD, Moved

modes = pytest.mark.parametrize("mode", STATELESS, ids=str)
protocols = pytest.mark.parametrize("protocol", ["tcp", "udp"])


def serve(balancer: plane.Balancer, mode: Mode, flags: int = 0) -> None:
    for service, protocol in ((1, tables.TCP), (2, tables.UDP)):
        balancer.service(service, VIPS[mode.family], PORT, protocol, mode.forwarding, flags)
        balancer.backend(service, service, NEAR[0], mode.backends)
        balancer.ring(service, tables.slot(service))


@pytest.mark.parametrize(
    ("mode", "name"),
    [(mode, name) for mode in STATELESS for name in MESSAGES[mode.family]],
    ids=str,
)
@protocols
def test_to_the_backend(balancer: plane.Balancer, mode: Mode, name: str, protocol: str) -> None:
    serve(balancer, mode)
    about = answer_of(client(mode.family), protocol)
    for size in (LEAST[mode.family], LEAST[mode.family] + 1, len(about)):
        frame = bytes(error(mode.family, about[:size], VIPS[mode.family], name))
        expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])
    assert balancer.reasons() == {"ICMP_FORWARDED": 3}


@modes
def test_to_the_backend_that_has_the_flow(balancer: plane.Balancer, mode: Mode) -> None:
    """As the ring says for the client's packets, not for the router's."""
    serve(balancer, mode)
    hosts = (*NEAR, *FAR)
    for number, host in enumerate(hosts):
        balancer.backend(10 + number, 1, host, mode.backends)
    slots = (tables.slot(10 + at % len(hosts)) for at in range(tables.RING_SLOTS))
    balancer.ring(1, b"".join(slots))
    seen = set()
    for port in range(3000, 3030):
        who = client(mode.family, 0, port)
        chosen = balancer.run(bytes(who.to("tcp"))).data[:12]
        frame = bytes(error(mode.family, answer_of(who), VIPS[mode.family]))
        assert balancer.run(frame).data[:12] == chosen
        seen.add(chosen)
    assert len(seen) > 5


@modes
def test_by_source(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, tables.BY_SOURCE)
    frame = bytes(error(mode.family, answer_of(client(mode.family)), VIPS[mode.family]))
    expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])


@modes
def test_any_port(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    balancer.service(1, VIPS[mode.family], 0, tables.TCP, mode.forwarding)
    about = answer_of(client(mode.family), port=4711)
    frame = bytes(error(mode.family, about, VIPS[mode.family]))
    expect.forwarded(balancer, mode, frame, balancer.run(frame), NEAR[0])


@modes
def test_in_moved_slots(balancer: plane.Balancer, mode: Mode) -> None:
    """The flow tables decide, and an error opens nothing."""
    moved = Moved(balancer, mode)
    old, new = client(mode.family, 1), client(mode.family, 2)
    moved.tcp(NEW, "S", who=new)
    moved.tcp(NEW, "A", who=new)
    for who, number in ((new, NEW), (old, OLD)):
        moved.goes_to(number, bytes(error(mode.family, answer_of(who), VIPS[mode.family])))
    moved.move(NEXT, NEW)
    moved.goes_to(NEW, bytes(error(mode.family, answer_of(new), VIPS[mode.family])))


@modes
def test_no_hop_left(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    frame = bytes(error(mode.family, answer_of(client(mode.family)), VIPS[mode.family], ttl=1))
    assert balancer.run(frame).word == "DROP"
    assert balancer.reasons()["DROP_TTL"] == 1


@modes
def test_about_nothing_of_ours(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    family, vip, who = mode.family, VIPS[mode.family], client(mode.family)
    elsewhere = Client(family, vip[:-1] + "1", PORT).to("tcp", vip=who.address, port=who.port)
    for about in (
        answer_of(who, port=81),
        answer_of(who, "udp", port=53),
        bytes(packets.network_layer(elsewhere)),
        bytes(ip_layer(family, vip, who.address) / Raw(bytes(40))),
        bytes(60),
        b"\xff" * 60,
    ):
        untouched(balancer, error(family, about, vip))
    untouched(balancer, error(family, answer_of(who), vip[:-1] + "1"), "PASS_FOREIGN")


@modes
def test_quotes_that_are_too_short(balancer: plane.Balancer, mode: Mode) -> None:
    """Padding does not make them longer."""
    serve(balancer, mode)
    about = answer_of(client(mode.family))
    for size in range(LEAST[mode.family]):
        packet = bytes(error(mode.family, about[:size], VIPS[mode.family]))
        untouched(balancer, packet)
        untouched(balancer, packet + about[size:])


def test_quotes_that_say_no_ports(balancer: plane.Balancer) -> None:
    serve(balancer, STATELESS[0])
    about = IP(answer_of(client(4)))
    later = about.copy()
    later.frag = 100
    optional = about.copy()
    optional.options = [IPOption_NOP()] * 4
    optional.ihl, optional.len, optional.chksum = None, None, None
    for quote in (later, optional):
        untouched(balancer, error(4, bytes(quote), VIPS[4]))


def test_a_quote_behind_extension_headers(balancer: plane.Balancer) -> None:
    serve(balancer, STATELESS[1])
    about = IPv6(answer_of(client(6)))
    transport = about.payload.copy()
    about.remove_payload()
    about.nh, about.plen = None, None
    frame = bytes(error(6, bytes(about / IPv6ExtHdrDestOpt() / transport), VIPS[6]))
    expect.forwarded(balancer, STATELESS[1], frame, balancer.run(frame), NEAR[0])


@modes
def test_other_messages(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode)
    others = {4: [4, 5, 0, 9, 10, 13, 14, 17], 6: [129, 130, 133, 134, 135, 136, 137, 143]}
    for kind in others[mode.family]:
        packet = error(mode.family, answer_of(client(mode.family)), VIPS[mode.family])
        frame = bytearray(bytes(packet))
        frame[14 + HEADER[mode.family]] = kind
        untouched(balancer, bytes(frame))
