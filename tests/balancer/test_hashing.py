# SPDX-License-Identifier: GPL-3.0-or-later
"""How evenly connections are spread and how few move, on the ring itself and on packets run through the program."""

from __future__ import annotations

import random
import struct
from collections import Counter

import packets
import pytest
from balancer import RING_SLOTS, Balancer, bpftool, service
from scenario import DSR4, Scenario, members, scenario
from servers import Server
from topology import Topology

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import pins, test_run

SLOT = struct.Struct("=HH")  # struct slot of layout.h
FLOWS = 200_000
EQUALLY, BY_WEIGHT = 0.01, 0.02  # the most that a share may be off, of that share
ROUTED = [
    f"10.2.0.{last}" for last in range(50, 60)
]  # on the servers' LAN; whether they are there does not matter


def ring(balancer: Balancer, number: int) -> list[tuple[str, int]]:
    """Address and port of the backend in each slot."""
    key = ("key", *number.to_bytes(4, "little"))
    found = bpftool("map", "lookup", "pinned", balancer.maps / "rings", *key)["value"]
    inner = int.from_bytes(bytes(int(byte, 16) for byte in found), "little")
    raw = bpftool("map", "lookup", "id", inner, "key", 0, 0, 0, 0)["value"]
    data = bytes(int(byte, 16) for byte in raw[: RING_SLOTS * SLOT.size])
    slots = [backend for backend, _previous in SLOT.iter_unpack(data)]
    assert len(slots) == RING_SLOTS
    ids = {
        entry["key"]: (str(entry["value"]["address"]), int(entry["value"]["port"]))
        for entry in balancer.dump("backends")
        if entry["value"]["family"]
    }
    return [ids[slot] for slot in slots]


def declared(at_work: Scenario, backends: list[dict[str, object]]) -> list[tuple[str, int]]:
    """The ring of a service with these backends."""
    outcome = at_work.balancer.declare([service("web", at_work.vip, "dsr", backends)])
    return ring(at_work.balancer, outcome.report["services"][0]["id"])


def flows(count: int, seed: int = 7) -> list[tuple[str, int]]:
    numbers = random.Random(seed)
    return [
        (
            f"10.1.{numbers.randrange(256)}.{numbers.randrange(1, 255)}",
            numbers.randrange(1024, 65536),
        )
        for dummy in range(count)
    ]


def choices(at_work: Scenario, wanted: list[tuple[str, int]]) -> list[bytes]:
    """The link-layer address of the backend that the program chooses for each client's SYN to port 80."""
    node, network, vip = at_work.balancer.node, at_work.network, at_work.vip
    head = packets.ethernet(
        network, at_work.client, packets.ip_packet("10.1.1.1", vip, packets.TCP, b"")
    )[:14]
    head = bytes.fromhex(node.mac.replace(":", "")) + head[6:]
    found = []
    with pins.get(str(at_work.balancer.pins / "xdp_lb")) as program, node.entered():
        index = int((node.run("ip", "-o", "link", "show", "eth0")).split(":")[0])
        for source, port in wanted:
            segment = packets.tcp_segment(source, vip, (port, 80), 1)
            frame = head + packets.ip_packet(source, vip, packets.TCP, segment)
            context = test_run.xdp_context(len(frame), index)
            run = test_run.run(program, frame, context=context)
            assert run.verdict == 3, run  # XDP_TX
            found.append(run.data[:6])
    return found


@pytest.fixture
def at_work(network: Topology, backends: tuple[Server, ...]) -> Scenario:
    with scenario(DSR4, network) as made:
        yield made


def assert_shares(counts: Counter[object], weights: dict[object, int], most: float) -> None:
    total, of_all = sum(counts.values()), sum(weights.values())
    for each, weight in weights.items():
        share = total * weight / of_all
        assert abs(counts[each] - share) <= most * share, (counts, weights)


@pytest.mark.parametrize("count", [2, 3, 4, 10])
def test_equal_weights_in_the_ring(at_work: Scenario, count: int) -> None:
    slots = declared(at_work, [{"address": address} for address in ROUTED[:count]])
    counts = Counter(slots)
    assert_shares(counts, dict.fromkeys(counts, 1), EQUALLY)
    assert len(counts) == count


@pytest.mark.parametrize("weights", [(1, 2, 3, 4), (10, 1), (100, 100, 99), (1, 50)])
def test_weights_in_the_ring(at_work: Scenario, weights: tuple[int, ...]) -> None:
    backends: list[dict[str, object]] = [
        {"address": address, "weight": weight} for address, weight in zip(ROUTED, weights)
    ]
    slots = Counter(declared(at_work, backends)).values()
    ordered = dict(zip(sorted(weights), sorted(slots)))
    total, of_all = sum(slots), sum(weights)
    for weight, slots_of_it in zip(sorted(weights), sorted(slots)):
        assert slots_of_it == pytest.approx(total * weight / of_all, rel=BY_WEIGHT), ordered


@pytest.mark.parametrize("count", [2, 4, 10])
def test_removing_one_moves_its_share(at_work: Scenario, count: int) -> None:
    """And adding it again puts everything back."""
    backends: list[dict[str, object]] = [{"address": address} for address in ROUTED[:count]]
    before = declared(at_work, backends)
    after = declared(at_work, backends[1:])
    moved = sum(old != new for old, new in zip(before, after))
    assert moved / RING_SLOTS <= 1 / count + 0.01
    assert declared(at_work, backends) == before


def test_flows_are_spread_as_the_ring_says(at_work: Scenario) -> None:
    """SYNs of many clients through the program itself, at equal weights and at others."""
    macs = {node.mac: weight for weight, node in enumerate(at_work.network.backends, 1)}
    sample = flows(FLOWS // 2)
    for weighted, most in ((False, EQUALLY), (True, BY_WEIGHT)):
        backends = members(DSR4, at_work.network.backends)
        for weight, backend in enumerate(backends, 1):
            backend["weight"] = weight if weighted else 1
        at_work.balancer.declare([])
        declared(at_work, backends)
        counts: Counter[object] = Counter(mac.hex(":") for mac in choices(at_work, sample))
        assert_shares(
            counts, {mac: weight if weighted else 1 for mac, weight in macs.items()}, most
        )


def test_flows_that_move(at_work: Scenario) -> None:
    """One of four backends leaves: what moves is its own quarter of the new connections."""
    backends = members(DSR4, at_work.network.backends)
    sample = flows(FLOWS // 8)
    declared(at_work, backends)
    before = choices(at_work, sample)
    declared(at_work, backends[1:])
    after = choices(at_work, sample)
    gone = bytes.fromhex(at_work.network.backends[0].mac.replace(":", ""))
    assert gone not in after
    moved = sum(old != new for old, new in zip(before, after))
    assert moved / len(sample) <= 1 / 4 + 0.01
