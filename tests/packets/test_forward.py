# SPDX-License-Identifier: GPL-3.0-or-later
"""dsr and ipip: the bytes that leave, for both families, and nothing else about them."""

from __future__ import annotations

from dataclasses import replace

import expect
import packets
import plane
import pytest
import tables
from expect import STATELESS, Mode
from network import FAR, NARROW, NEAR, ROUTED, SILENT, UNREACHABLE, Host, ip, not_forwarding
from packets import PORT, VIPS, client
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

modes = pytest.mark.parametrize("mode", STATELESS, ids=str)
ipip = pytest.mark.parametrize("mode", STATELESS[2:], ids=str)
SERVICE = 1


def serve(
    balancer: plane.Balancer, mode: Mode, *hosts: Host, port: int = PORT, **state: int
) -> None:
    """Both protocols on a port; all hosts are backends, the first one has the whole ring."""
    for service, protocol in ((SERVICE, tables.TCP), (2, tables.UDP)):
        balancer.service(service, VIPS[mode.family], port, protocol, mode.forwarding)
        for number, host in enumerate(hosts):
            identity = 10 * service + number
            balancer.backend(identity, service, host, mode.backends, **state)
        balancer.ring(service, tables.slot(10 * service))


def goes_to(balancer: plane.Balancer, mode: Mode, packet: Packet | bytes, host: Host) -> None:
    frame = bytes(packet)
    expect.forwarded(balancer, mode, frame, balancer.run(frame), host)


@modes
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("host", [NEAR[0], FAR[0]], ids=["same interface", "other interface"])
def test_it_reaches_its_backend(
    balancer: plane.Balancer, mode: Mode, protocol: str, host: Host
) -> None:
    serve(balancer, mode, host)
    for payload in (b"", b"x", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 4):
        goes_to(balancer, mode, client(mode.family).to(protocol, payload), host)
    assert balancer.reasons() == {}


@ipip
def test_a_backend_behind_a_router(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, ROUTED)
    goes_to(balancer, mode, client(mode.family).to("tcp", b"data"), ROUTED)


@modes
@pytest.mark.parametrize(
    "flags", ["S", "SA", "A", "PA", "FA", "R", "RA", "FPU", "SEC", "", "FSRPAUEC"]
)
def test_flags_make_no_difference(balancer: plane.Balancer, mode: Mode, flags: str) -> None:
    serve(balancer, mode, NEAR[0])
    goes_to(balancer, mode, client(mode.family).to("tcp", b"data", flags=flags), NEAR[0])


@modes
def test_tcp_options_stay(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, NEAR[0])
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 2)), ("NOP", None), ("WScale", 7)]
    packet = client(mode.family).to("tcp", flags="S", options=options)
    goes_to(balancer, mode, packet, NEAR[0])


@modes
def test_udp_without_a_checksum(balancer: plane.Balancer, mode: Mode) -> None:
    """IPv6 forbids it, tunnels do it; it is not ours to judge."""
    serve(balancer, mode, NEAR[0])
    goes_to(balancer, mode, client(mode.family).to("udp", b"data", chksum=0), NEAR[0])


@modes
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_wrong_checksum_stays_wrong(balancer: plane.Balancer, mode: Mode, protocol: str) -> None:
    serve(balancer, mode, NEAR[0])
    packet = client(mode.family).to(protocol, b"data", chksum=0x1234)
    goes_to(balancer, mode, packet, NEAR[0])


@modes
@pytest.mark.parametrize("padding", [1, 6, 18, 46])
def test_ethernet_padding(balancer: plane.Balancer, mode: Mode, padding: int) -> None:
    serve(balancer, mode, NEAR[0])
    goes_to(balancer, mode, bytes(client(mode.family).to("udp")) + bytes(padding), NEAR[0])


@modes
@pytest.mark.parametrize("kind", [0x00, 0x01, 0x02, 0x03, 0xB8, 0xFF])
def test_the_traffic_class_is_kept_and_copied(
    balancer: plane.Balancer, mode: Mode, kind: int
) -> None:
    serve(balancer, mode, NEAR[0])
    packet = client(mode.family).to("tcp", b"data")
    if mode.family == 4:
        packet[IP].tos = kind
    else:
        packet[IPv6].tc = kind
    goes_to(balancer, mode, packet, NEAR[0])


@modes
def test_ipv4_header_fields_stay(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, NEAR[0])
    for number, flags in ((0, "DF"), (1, "DF"), (0xFFFF, ""), (0x1234, "evil"), (7, "DF+evil")):
        packet = client(mode.family).to("tcp", b"data")
        if mode.family == 4:
            packet[IP].id, packet[IP].flags = number, flags
        else:
            packet[IPv6].fl = number
        goes_to(balancer, mode, packet, NEAR[0])


@pytest.mark.parametrize("mode", [mode for mode in STATELESS if mode.family == 4], ids=str)
def test_the_header_s_checksum_at_its_borders(balancer: plane.Balancer, mode: Mode) -> None:
    """Checksums over the whole range, and those beside which they wrap."""
    serve(balancer, mode, NEAR[0])
    for number in (*range(0, 65536, 251), *range(0xFE00, 0xFF10, 3)):
        packet = client(4).to("udp", b"x")
        packet[IP].id = number
        goes_to(balancer, mode, packet, NEAR[0])


@modes
@pytest.mark.parametrize("ttl", [2, 3, 64, 128, 255])
def test_one_hop_less(balancer: plane.Balancer, mode: Mode, ttl: int) -> None:
    serve(balancer, mode, NEAR[0])
    goes_to(balancer, mode, client(mode.family).to("tcp", ttl=ttl), NEAR[0])


@modes
@pytest.mark.parametrize("ttl", [0, 1])
def test_no_hop_left(balancer: plane.Balancer, mode: Mode, ttl: int) -> None:
    serve(balancer, mode, NEAR[0])
    expect.dropped(balancer, client(mode.family).to("tcp", ttl=ttl), "DROP_TTL")
    assert balancer.backend_counters(10) == (0, 0, 0)


@modes
def test_no_neighbour(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, SILENT)
    expect.dropped(balancer, client(mode.family).to("tcp"), "DROP_NO_NEIGHBOUR")


@modes
def test_no_route(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, UNREACHABLE)
    expect.dropped(balancer, client(mode.family).to("tcp"), "DROP_NO_ROUTE")


@modes
def test_no_forwarding(balancer: plane.Balancer, mode: Mode) -> None:
    """The kernel tells no route on an interface that does not forward; and then it does."""
    serve(balancer, mode, FAR[0])
    with not_forwarding():
        expect.dropped(balancer, client(mode.family).to("tcp"), "DROP_NOT_FORWARDING")
    goes_to(balancer, mode, client(mode.family).to("tcp"), FAR[0])


@modes
def test_a_neighbour_appears(balancer: plane.Balancer, mode: Mode) -> None:
    """An answer that was none is not kept."""
    serve(balancer, mode, SILENT)
    packet = client(mode.family).to("tcp")
    expect.dropped(balancer, packet, "DROP_NO_NEIGHBOUR")
    address = SILENT.address(mode.backends)
    ip(f"neigh replace {address} lladdr 02:00:00:02:00:99 dev out0 nud permanent")
    try:
        known = replace(SILENT, mac="02:00:00:02:00:99")
        goes_to(balancer, mode, packet, known)
    finally:
        ip(f"neigh del {address} dev out0")


@pytest.mark.parametrize("mode", STATELESS[:2], ids=str)
def test_dsr_needs_the_same_network(balancer: plane.Balancer, mode: Mode) -> None:
    """A router would see the VIP as destination, and send the packet back."""
    serve(balancer, mode, ROUTED)
    expect.dropped(balancer, client(mode.family).to("tcp"), "DROP_NO_ROUTE")


@modes
def test_no_backend(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, NEAR[0])
    packet = client(mode.family).to("tcp")
    balancer.ring(SERVICE, tables.slot(0))
    expect.dropped(balancer, packet, "DROP_NO_BACKEND")
    balancer.ring(SERVICE, tables.slot(17))  # an id that is free
    expect.dropped(balancer, packet, "DROP_NO_BACKEND")
    balancer.ring(SERVICE, tables.slot(20))  # another service's
    expect.dropped(balancer, packet, "DROP_NO_BACKEND")
    balancer.ring(SERVICE, tables.slot(9000))  # beyond the table
    expect.dropped(balancer, packet, "DROP_NO_BACKEND")


@modes
def test_no_ring(balancer: plane.Balancer, mode: Mode) -> None:
    balancer.service(900, VIPS[mode.family], PORT, tables.TCP, mode.forwarding)
    expect.dropped(balancer, client(mode.family).to("tcp"), "DROP_NO_BACKEND", service=900)


@modes
@pytest.mark.parametrize("state", [tables.ACTIVE, tables.DRAINING, tables.DISABLED])
def test_the_backend_s_state(balancer: plane.Balancer, mode: Mode, state: int) -> None:
    """Only a disabled one gets no packets: the ring is what keeps new ones from a draining one."""
    serve(balancer, mode, NEAR[0], state=state)
    packet = client(mode.family).to("tcp", b"data")
    if state == tables.DISABLED:
        expect.dropped(balancer, packet, "DROP_NO_BACKEND")
    else:
        goes_to(balancer, mode, packet, NEAR[0])


@modes
@pytest.mark.parametrize("health", [tables.UNKNOWN, tables.UP, tables.DOWN])
def test_the_backend_s_health_decides_nothing_here(
    balancer: plane.Balancer, mode: Mode, health: int
) -> None:
    serve(balancer, mode, NEAR[0], health=health)
    goes_to(balancer, mode, client(mode.family).to("tcp", b"data"), NEAR[0])


@modes
def test_a_backend_s_address_changes(balancer: plane.Balancer, mode: Mode) -> None:
    serve(balancer, mode, NEAR[0])
    packet = client(mode.family).to("tcp", b"data")
    goes_to(balancer, mode, packet, NEAR[0])
    balancer.backend(10, SERVICE, FAR[3], mode.backends)
    goes_to(balancer, mode, packet, FAR[3])


@modes
def test_counters(balancer: plane.Balancer, mode: Mode) -> None:
    """Bytes are from the client's IP header on, without padding or what is put around it."""
    serve(balancer, mode, NEAR[0])
    someone = client(mode.family)
    header = {4: 20, 6: 40}[mode.family]
    balancer.run(bytes(someone.to("tcp", flags="S")))
    assert balancer.backend_counters(10) == (1, header + 20, 1)
    balancer.run(bytes(someone.to("tcp", bytes(100), flags="SA")))
    balancer.run(bytes(someone.to("tcp", bytes(100), flags="A")))
    balancer.run(bytes(someone.to("tcp", flags="FA")))
    assert balancer.backend_counters(10) == (4, 4 * (header + 20) + 200, 1)
    balancer.run(bytes(someone.to("tcp", flags="SEC")))  # asks for congestion notification
    assert balancer.backend_counters(10)[2] == 2
    balancer.run(bytes(someone.to("udp", bytes(10))) + bytes(18))
    assert balancer.backend_counters(20) == (1, header + 18, 0)
    assert balancer.backend_counters(11) == (0, 0, 0)
    assert balancer.service_counters(1) == (0, 0, 0)
    assert balancer.service_counters(2) == (0, 0, 0)
    assert balancer.reasons() == {}


@modes
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_any_port(balancer: plane.Balancer, mode: Mode, protocol: str) -> None:
    number = packets.NUMBERS[protocol]
    balancer.service(1, VIPS[mode.family], 0, number, mode.forwarding)
    balancer.backend(10, 1, NEAR[0], mode.backends)
    balancer.ring(1, tables.slot(10))
    balancer.service(2, VIPS[mode.family], 443, number, mode.forwarding)
    balancer.backend(20, 2, FAR[0], mode.backends)
    balancer.ring(2, tables.slot(20))
    for port in (1, 22, 80, 442, 444, 65535):
        goes_to(balancer, mode, client(mode.family).to(protocol, b"data", port=port), NEAR[0])
    goes_to(balancer, mode, client(mode.family).to(protocol, b"data", port=443), FAR[0])
    other = {"tcp": "udp", "udp": "tcp"}[protocol]
    assert balancer.run(bytes(client(mode.family).to(other))).word == "PASS"
    elsewhere = client(mode.family).to(protocol, vip=VIPS[mode.family][:-1] + "1")
    assert balancer.run(bytes(elsewhere)).word == "PASS"


@modes
def test_any_port_needs_its_flag(balancer: plane.Balancer, mode: Mode) -> None:
    """Without one such service, nobody pays for the second look."""
    balancer.service(1, VIPS[mode.family], 0, tables.TCP, mode.forwarding)
    balancer.backend(10, 1, NEAR[0], mode.backends)
    balancer.ring(1, tables.slot(10))
    balancer.configure(flags=tables.FILTER)
    assert balancer.run(bytes(client(mode.family).to("tcp"))).word == "PASS"


EXTENSIONS = {
    "hop by hop": [IPv6ExtHdrHopByHop()],
    "destination options": [IPv6ExtHdrDestOpt()],
    "long options": [IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(90))])],
    "routing, done": [IPv6ExtHdrRouting(type=2, segleft=0, addresses=["2001:db8::5"])],
    "atomic fragment": [IPv6ExtHdrFragment(id=7)],
    "several": [IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrFragment(id=9)],
    "six": [IPv6ExtHdrHopByHop(), *[IPv6ExtHdrDestOpt()] * 5],
}


@pytest.mark.parametrize("mode", [mode for mode in STATELESS if mode.family == 6], ids=str)
@pytest.mark.parametrize("headers", EXTENSIONS.values(), ids=EXTENSIONS)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_ipv6_extension_headers(
    balancer: plane.Balancer, mode: Mode, headers: list[Packet], protocol: str
) -> None:
    serve(balancer, mode, NEAR[0])
    network: Packet = IPv6(src=packets.CLIENTS[6], dst=VIPS[6])
    for header in headers:
        network = network / header.copy()
    transport = {"tcp": TCP, "udp": UDP}[protocol](sport=40000, dport=PORT)
    packet = packets.from_router(network / transport / Raw(b"data"))
    goes_to(balancer, mode, packet, NEAR[0])


@ipip
def test_no_room_to_encapsulate(balancer: plane.Balancer, mode: Mode) -> None:
    """Another program has used the headroom up."""
    serve(balancer, mode, NEAR[0])
    frame = bytes(client(mode.family).to("tcp", b"data"))
    result = balancer.run_bare(frame, metadata=200)
    assert result.word == "DROP"
    assert balancer.reasons() == {"DROP_NO_ROOM": 1}
    assert balancer.service_counters(1)[0] == 1


@modes
def test_it_came_in_elsewhere(balancer: plane.Balancer, mode: Mode) -> None:
    """From the loopback interface, a backend behind in0 is a redirection away."""
    serve(balancer, mode, NEAR[0])
    frame = bytes(client(mode.family).to("tcp", b"data"))
    result = balancer.run_bare(frame, ifindex=1)
    assert result.word == "REDIRECT"
    twin = plane.Result(plane.TX, result.data)
    expect.forwarded(balancer, mode, frame, twin, NEAR[0])


LONG = [(mode, NEAR[0]) for mode in STATELESS] + [(mode, NARROW) for mode in STATELESS[2:]]


@pytest.mark.parametrize(("mode", "host"), LONG, ids=lambda item: str(getattr(item, "mtu", item)))
def test_as_long_as_it_can_be(balancer: plane.Balancer, mode: Mode, host: Host) -> None:
    serve(balancer, mode, host)
    header = {4: 20, 6: 40}[mode.family] + 20
    payload = bytes(host.mtu - mode.overhead - header)
    goes_to(balancer, mode, client(mode.family).to("tcp", payload), host)
