# SPDX-License-Identifier: GPL-3.0-or-later
"""The control: the network, servers and clients without a balancer. What passes elsewhere does not pass by accident."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import clients
import packets
import pytest
from scenario import vip_of
from servers import Server
from topology import Topology, wait_for


@pytest.mark.parametrize("family", [4, 6])
def test_one_backend_without_a_balancer(
    network: Topology, backends: tuple[Server, ...], family: int, tmp_path: Path
) -> None:
    """Plain routing to one backend: every kind of client works, every answer is that backend's."""
    vip, backend, client = vip_of(network.number(), family), backends[0], network.clients[0]
    with network.hosted(vip, network.backends):
        network.route(vip, backend.node)
        try:
            with clients.load(
                client, vip, requests=2, sessions=5, datagrams=2, uploads=1
            ) as report:
                assert clients.wrk(client, vip, 1).errors == ""
            report.assert_clean()
            for kind in ("requests", "sessions", "datagrams", "uploads"):
                assert set(report.backends(kind)) == {backend.node.name}
            assert clients.echoes(client, vip, count=3) == 3
        finally:
            network.unroute(vip)
        assert not clients.answers(client, vip, seconds=0.3)


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_wrong_checksum_is_seen(
    network: Topology, backends: tuple[Server, ...], spoilt: bool
) -> None:
    """A datagram with a wrong checksum arrives at the backend, which counts and drops it."""
    client, backend = network.clients[0], network.backends[0]
    wrong, right = backend.counter("Udp.InCsumErrors"), backend.counter("Udp.InDatagrams")
    packets.send(
        client, [packets.datagram(network, client, backend.ipv4, b"question", spoilt=spoilt)]
    )
    assert wait_for(lambda: backend.counter("Udp.InCsumErrors") == wrong + spoilt)
    assert wait_for(lambda: backend.counter("Udp.InDatagrams") == right + (not spoilt))


def test_what_leaves_a_box_is_checksummed(network: Topology, backends: tuple[Server, ...]) -> None:
    """No offload: the router sees finished checksums, so that a balancer's mistakes reach the receiver."""
    client, backend = network.clients[0], network.backends[0]
    with network.router.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    with tap:
        tap.bind((client.name, 0))
        tap.settimeout(2)
        clients.curl(client, backend.ipv4)
        for dummy in range(4):
            frame = tap.recv(65535)
            packet = frame[14 : 14 + struct.unpack_from("!H", frame, 16)[0]]
            assert packets.transport_checksum(packet) == 0, packet.hex()


def test_uploads_are_compared(network: Topology, backends: tuple[Server, ...]) -> None:
    """The sum of an upload is that of its bytes: one that is off is noticed by the client."""
    with clients.tcp(network.clients[0], network.backends[0].ipv4, 7001) as upload:
        upload.sendall(os.urandom(1000))
        upload.shutdown(socket.SHUT_WR)
        name, digest = upload.recv(200).decode().split()
    assert name == "backend1"
    assert len(digest) == 64


@pytest.mark.parametrize("family", [4, 6])
def test_a_lost_backend_is_noticed(
    network: Topology,
    backends: tuple[Server, ...],
    family: int,
    no_resets: Callable[[], AbstractContextManager[None]],
) -> None:
    """What balancing without memory would look like: sessions that land on another backend are reset, and reported."""
    vip, client = vip_of(network.number(), family), network.clients[0]
    with network.hosted(vip, network.backends):
        network.route(vip, network.backends[0])
        with pytest.raises(AssertionError, match="OutRsts"), no_resets():
            with clients.load(client, vip, requests=2, sessions=10, datagrams=2) as report:
                network.route(vip, network.backends[1])
                time.sleep(3)
        network.unroute(vip)
    assert report.tallies["sessions"]["failed"] == 10
    assert report.tallies["datagrams"]["moved"] == 2
    with pytest.raises(AssertionError, match="failed"):
        report.assert_clean()
