# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter before the services: it may let too much through to the tables, never too little."""

from __future__ import annotations

import ipaddress
import random

import plane
import pytest
import tables
from network import NEAR
from packets import FAMILIES, PORT, VIPS, client

families = pytest.mark.parametrize("family", FAMILIES)


def serve(balancer: plane.Balancer, family: int) -> None:
    balancer.service(1, VIPS[family], PORT, tables.TCP, tables.DSR)
    balancer.backend(1, 1, NEAR[0], family)
    balancer.ring(1, tables.slot(1))


@families
def test_without_it(balancer: plane.Balancer, family: int) -> None:
    serve(balancer, family)
    balancer.configure(flags=tables.Settings.flags & ~tables.FILTER)
    balancer.fill_filter(0)
    assert balancer.run(bytes(client(family).to("tcp"))).word == "TX"
    assert balancer.run(bytes(client(family).to("tcp", port=81))).word == "PASS"


@families
def test_a_full_one_is_as_good_as_none(balancer: plane.Balancer, family: int) -> None:
    serve(balancer, family)
    balancer.fill_filter(0xFF)
    assert balancer.run(bytes(client(family).to("tcp"))).word == "TX"
    assert balancer.run(bytes(client(family).to("tcp", port=81))).word == "PASS"


@families
def test_an_empty_one_passes_everything(balancer: plane.Balancer, family: int) -> None:
    serve(balancer, family)
    balancer.fill_filter(0)
    frame = bytes(client(family).to("tcp"))
    result = balancer.run(frame)
    assert (result.word, result.data) == ("PASS", frame)


@families
def test_every_service_has_its_bit(balancer: plane.Balancer, family: int) -> None:
    """A thousand services of random addresses and ports: each is found by the bit that layout.h
    says, computed by these tests for themselves."""
    chance = random.Random(family)
    kind = {4: ipaddress.IPv4Address, 6: ipaddress.IPv6Address}[family]
    serve(balancer, family)
    declared = []
    for dummy in range(1000):
        vip = str(kind(chance.randrange(1 << {4: 32, 6: 128}[family])))
        port = chance.randrange(1, 65536)
        balancer.declare(vip, port, tables.TCP, tables.service(1, tables.DSR))
        declared.append((vip, port))
    frame = bytes(client(family).to("tcp"))
    start, end, ports = {4: (30, 34, 36), 6: (38, 54, 56)}[family]
    for vip, port in declared:
        address = ipaddress.ip_address(vip).packed
        number = port.to_bytes(2, "big")
        made = frame[:start] + address + frame[end:ports] + number + frame[ports + 2 :]
        assert balancer.run(made).word == "TX", (vip, port)
