# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections through nat, as clients and backends see them: every packet is checked on its way."""

from __future__ import annotations

from dataclasses import dataclass, field

import packets
import plane
import tables
from expect import VERDICT
from network import CLIENT_MAC, IN_MAC, NEAR, Host
from packets import NUMBERS, PORT, VIPS, Client
from scapy.layers.inet import TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet
from tables import NatEntry

BACKEND_PORT = 8080
SERVICES = {"tcp": 1, "udp": 2}
TABLES = ("nat_opening", "nat_flows", "nat_replies_opening", "nat_replies")
SERVER_SEQUENCE = 7_000_000


def translated(
    packet: Packet, source: tuple[str, int], destination: tuple[str, int], host: Host | None = None
) -> bytes:
    """The packet with other ends and one hop less; to the host, or to the clients' router."""
    made = packets.aged(packets.network_layer(packets.parsed(bytes(packet))))
    zero = UDP in made and made[UDP].chksum == 0
    made.src, made.dst = source[0], destination[0]
    transport = made[TCP] if TCP in made else made[UDP]
    transport.sport, transport.dport = source[1], destination[1]
    transport.chksum = 0 if zero else None
    if host:
        return packets.sent_to(host, made)
    return bytes(Ether(src=IN_MAC, dst=CLIENT_MAC) / made)


@dataclass
class Nat:
    """A service over TCP and one over UDP that translate, to backends 10, 11, ... and 20, 21, ..."""

    balancer: plane.Balancer
    family: int
    hosts: tuple[Host, ...] = NEAR[:2]
    port: int = BACKEND_PORT
    own: str = field(init=False)

    def __post_init__(self) -> None:
        settings = self.balancer.settings
        self.own = settings.source4 if self.family == 4 else settings.source6
        for protocol, service in SERVICES.items():
            vip = VIPS[self.family]
            self.balancer.service(service, vip, PORT, NUMBERS[protocol], tables.NAT)
            for number in range(len(self.hosts)):
                self.state(number, protocol)
            self.ring(0, protocol)

    def state(self, number: int, protocol: str = "tcp", **state: int) -> None:
        """What the operator says of backend `number`."""
        service = SERVICES[protocol]
        host = self.hosts[number]
        identity = 10 * service + number
        self.balancer.backend(identity, service, host, self.family, self.port, **state)

    def ring(self, number: int, protocol: str = "tcp") -> None:
        """New connections go to this backend."""
        service = SERVICES[protocol]
        self.balancer.ring(service, tables.slot(10 * service + number))

    def sizes(self) -> tuple[int, ...]:
        return tuple(self.balancer.size(table) for table in TABLES)

    def connection(self, who: Client, protocol: str = "tcp", number: int = 0) -> Connection:
        return Connection(self, who, protocol, number)


@dataclass
class Connection:
    """One connection; `port` is the balancer's, once a packet has shown which."""

    nat: Nat
    who: Client
    protocol: str
    number: int  # of its backend
    port: int = 0
    service_port: int = PORT

    @property
    def host(self) -> Host:
        return self.nat.hosts[self.number]

    @property
    def backend(self) -> tuple[str, int]:
        return self.host.address(self.nat.family), self.nat.port or self.service_port

    @property
    def vip(self) -> tuple[str, int]:
        return VIPS[self.nat.family], self.service_port

    @property
    def key(self) -> bytes:
        service = SERVICES[self.protocol]
        return tables.flow_key(self.who.address, self.who.port, self.service_port, service)

    @property
    def reply_key(self) -> bytes:
        number = NUMBERS[self.protocol]
        return tables.nat_reply_key(*self.backend, self.port, number)

    def entry(self, table: str = "nat_flows") -> NatEntry | None:
        raw = self.nat.balancer.get(table, self.key)
        return NatEntry.of(raw) if raw else None

    def from_client(self, payload: bytes = b"", **fields: object) -> Packet:
        return self.who.to(self.protocol, payload, port=self.service_port, **fields)

    def send(self, payload: bytes = b"", **fields: object) -> bytes:
        """From the client; returns what reached the backend."""
        packet = self.from_client(payload, **fields)
        result = self.nat.balancer.run(bytes(packet))
        reasons = self.nat.balancer.reasons()
        assert result.word == VERDICT[self.host.tx], f"{result.word} {reasons}"
        at = {4: 34, 6: 54}[self.nat.family]
        port = int.from_bytes(result.data[at : at + 2], "big")
        first, last = self.nat.balancer.settings.nat_ports
        assert first <= port <= last
        assert self.port in (0, port), "the connection was given another port"
        self.port = port
        expected = translated(packet, (self.nat.own, port), self.backend, self.host)
        packets.same(result.data, expected)
        return result.data

    def from_backend(self, payload: bytes = b"", **fields: object) -> Packet:
        address, port = self.backend
        host = Client(self.nat.family, address, port)
        packet = host.to(self.protocol, payload, vip=self.nat.own, port=self.port, **fields)
        packet[Ether].src = self.host.mac
        return packet

    def answer(self, payload: bytes = b"", **fields: object) -> bytes:
        """From the backend; returns what reached the client."""
        packet = self.from_backend(payload, **fields)
        result = self.nat.balancer.run(bytes(packet))
        assert result.word == "TX", f"{result.word} {self.nat.balancer.reasons()}"
        someone = (self.who.address, self.who.port)
        packets.same(result.data, translated(packet, self.vip, someone))
        return result.data

    def refused(self, reason: str, payload: bytes = b"", **fields: object) -> None:
        """From the client, and dropped for that reason."""
        before = self.nat.balancer.reasons()
        result = self.nat.balancer.run(bytes(self.from_client(payload, **fields)))
        assert result.word == "DROP", f"{result.word} {self.nat.balancer.reasons()}"
        expected = {**before, reason: before.get(reason, 0) + 1}
        assert self.nat.balancer.reasons() == expected

    def unanswered(self, payload: bytes = b"", **fields: object) -> None:
        """From the backend, and no connection's: up to the host's own stack, untouched."""
        frame = bytes(self.from_backend(payload, **fields))
        result = self.nat.balancer.run(frame)
        assert result.word == "PASS", f"{result.word} {self.nat.balancer.reasons()}"
        packets.same(result.data, frame)

    def open(self) -> Connection:
        """The handshake."""
        self.send(flags="S", seq=100, ack=0)
        self.answer(flags="SA", seq=SERVER_SEQUENCE, ack=101)
        self.send(flags="A", seq=101, ack=SERVER_SEQUENCE + 1)
        return self

    def talk(self) -> None:
        """Data and acknowledgements both ways."""
        self.send(b"GET / HTTP/1.1\r\n\r\n", flags="PA", seq=101, ack=SERVER_SEQUENCE + 1)
        self.answer(b"HTTP/1.1 200 OK\r\n\r\n", flags="PA", seq=SERVER_SEQUENCE + 1, ack=119)
        self.send(flags="A", seq=119, ack=SERVER_SEQUENCE + 20)

    def close(self) -> None:
        """The client first, then the backend."""
        self.send(flags="FA", seq=119, ack=SERVER_SEQUENCE + 20)
        self.answer(flags="FA", seq=SERVER_SEQUENCE + 20, ack=120)
        self.send(flags="A", seq=120, ack=SERVER_SEQUENCE + 21)

    def age(self, seconds: int) -> None:
        """Let both entries of a confirmed flow be that old."""
        balancer, seen = self.nat.balancer, plane.u32(plane.seconds() - seconds)
        entry = balancer.get("nat_flows", self.key)
        origin = balancer.get("nat_replies", self.reply_key)
        assert entry
        assert origin
        balancer.put("nat_flows", self.key, entry[:4] + seen + entry[8:])
        balancer.put("nat_replies", self.reply_key, origin[:40] + seen)
