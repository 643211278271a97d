# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done to a balancer's tables, and to a server behind one, under a journal can be taken back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import snapshot
from resources import Resource, converge

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, journal, maps, netns, pins
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import (
    backend_host,
    connections,
    layout,
    tables,
)


def tunnels() -> bool:
    """Whether the kernel makes tunnel devices, tried in a namespace that is dropped."""
    try:
        with netns.scratch():
            backend_host.ip("link", "add", "t", "type", "ipip", "local", "10.0.0.1")
    except Failure:
        return False
    return True


FILES = Path(__file__).resolve().parents[2] / "roles/xdp_lb/files"
STACK = f"balancer-{os.getpid()}"
BASE = "/sys/fs/bpf/ebpf_fleet/b"
# Not every kernel has tunnel devices.
UNPACK = "device" if tunnels() else "none"
LARGE = ("client_hops",)  # of the data plane alone
SMALL = {
    **dict.fromkeys(("flows", "flows_leaving", "nat_flows", "nat_replies"), 64),
    **dict.fromkeys(("rings", "service_names", "service_counters"), 9),
    **dict.fromkeys(("backends", "backend_counters", "next_hops"), 33),
}


def balancer() -> list[Resource]:
    common = {"pin_dir": "b", "stack": STACK}
    return [
        (
            "bpf_prog",
            {
                **common,
                "object": str(FILES / "xdp_lb.bpf.o"),
                "programs": ["xdp_lb"],
                "pin_maps": "b/maps",
                "map_max_entries": SMALL,
            },
        ),
        ("bpf_prog", {**common, "object": str(FILES / "maglev.bpf.o"), "programs": ["maglev"]}),
    ]


def services(netns_name: str, *numbers: int, weight: int = 1, backends: int = 3) -> Resource:
    return (
        "xdp_lb_services",
        {
            "pin_dir": "b",
            "netns": netns_name,
            "services": [
                {
                    "name": f"s{number}",
                    "vip": f"192.0.2.{number}",
                    "port": "80",
                    "forwarding": "dsr",
                    "backends": [
                        {"address": f"10.0.0.{10 + each}", "weight": weight}
                        for each in range(backends)
                    ],
                }
                for number in numbers
            ],
        },
    )


def look(network: str = "", files: tuple[Path, ...] = ()) -> snapshot.Snapshot:
    """With the contents of the rings: what a map of maps holds are ids of maps."""
    found = snapshot.take(netns=network, files=files, maps=LARGE, stack=STACK)
    if not Path(BASE, "maps").exists():
        return found
    with tables.opened(BASE) as opened:
        now = tables.read(opened)
        ids = {number: tables.ring_map_id(opened, number) for number in now.rings}
    return {**found, "rings": now.rings, "ring ids": ids}


@pytest.fixture
def network(netns: str) -> str:
    """With the backends as neighbours."""
    words = [["address", "add", "10.0.0.1/24", "dev", "v0"]]
    for each in range(4):
        words.append(
            [
                "neighbour",
                "add",
                f"10.0.0.{10 + each}",
                "lladdr",
                f"02:00:00:00:00:{each:02}",
                "dev",
                "v0",
                "nud",
                "permanent",
            ]
        )
    for each in words:
        subprocess.run(["ip", "-n", netns, *each], check=True)
    return netns


CHANGES: dict[str, list[dict[str, Any]]] = {
    "services added": [{"numbers": (1, 2, 3, 4)}],
    "backends changed": [{"numbers": (1, 2), "backends": 2}, {"numbers": (1, 2), "backends": 4}],
    "services removed": [{"numbers": (2,)}],
    "all removed": [{"numbers": ()}],
    "weights changed": [{"numbers": (1, 2), "weight": 3}],
}


@pytest.mark.parametrize("case", CHANGES)
def test_services(case: str, network: str, bpffs: Path) -> None:
    for resource in [*balancer(), services(network, 1, 2)]:
        converge(resource)
    _remember_flows()
    before = look(network)
    assert before["ring ids"]
    with journal.recording() as log:
        for change in CHANGES[case]:
            numbers = change["numbers"]
            more = {key: value for key, value in change.items() if key != "numbers"}
            assert converge(services(network, *numbers, **more))
        assert log.roll_back() == []
    assert snapshot.settled(before, lambda: look(network)) == []
    assert converge(services(network, 1, 2)) == []


def test_the_whole_balancer(network: str, bpffs: Path) -> None:
    before = look(network)
    with journal.recording() as log:
        for resource in [*balancer(), services(network, 1, 2)]:
            assert converge(resource)
        assert log.roll_back() == []
    assert snapshot.settled(before, lambda: look(network)) == []


def test_connections_of_backends_that_are_gone_are_forgotten_at_commit(
    network: str, bpffs: Path
) -> None:
    for resource in [*balancer(), services(network, 1, 2)]:
        converge(resource)
    keys = _remember_flows()
    assert len(keys) == 6  # each service has its own record of a backend
    with journal.recording() as log:
        converge(services(network, 1, 2, backends=1))
        assert len(_flows()) == 6
        assert log.commit() == []
    assert len(_flows()) == 2


def _remember_flows() -> list[bytes]:
    """An old connection to each backend, written as the data plane writes it."""
    with tables.opened(BASE, (*tables.TABLES, *connections.TABLES)) as opened:
        flows = opened["flows"]
        for number in tables.read(opened).backends:
            key = bytes([number]) * flows.info.key_size
            value = layout.KEY.pack(number).ljust(flows.info.value_size, b"\0")
            maps.put(flows.fd, key, value)
    return _flows()


def _flows() -> list[bytes]:
    with pins.get(f"{BASE}/maps/flows") as fd:
        return list(maps.keys(fd, info.map_(fd).key_size))


def server(record: Path, *vips: int, forwarding: str = "dsr") -> Resource:
    found = [
        {
            "name": f"s{vip}",
            "vip": f"192.0.2.{vip}",
            "forwarding": forwarding,
            "backends": [{"address": "10.0.0.1"}],
        }
        for vip in vips
    ]
    given = {"services": found, "record": str(record), "unpack": UNPACK}
    return "xdp_lb_backend", {**given, "state": "present" if vips else "absent"}


@pytest.fixture
def inside(network: str) -> Iterator[str]:
    """This process is the server."""
    subprocess.run(["ip", "-n", network, "route", "add", "default", "via", "10.0.0.10"], check=True)
    with netns.entered(netns.path_of(network)):
        yield network


@pytest.mark.parametrize(
    ("beginning", "steps"),
    [
        ([], [((1, 2), "dsr")]),
        ([((1, 2), "dsr")], [((2, 3), "dsr")]),
        ([((1,), "dsr")], [((), "dsr")]),
        ([], [((1,), "ipip")]),
        ([((1,), "ipip")], [((1, 2), "ipip")]),
        ([((1,), "ipip")], [((), "ipip")]),
        ([((1,), "ipip")], [((1,), "dsr")]),
    ],
)
def test_server(
    beginning: list[tuple[tuple[int, ...], str]],
    steps: list[tuple[tuple[int, ...], str]],
    inside: str,
    tmp_path: Path,
) -> None:
    record = tmp_path / "kept" / "record.json"
    for vips, forwarding in beginning:
        converge(server(record, *vips, forwarding=forwarding))
    before = _comparable(look(inside, (tmp_path,)))
    with journal.recording() as log:
        for vips, forwarding in steps:
            assert converge(server(record, *vips, forwarding=forwarding))
        assert log.roll_back() == []
    assert snapshot.settled(before, lambda: _comparable(look(inside, (tmp_path,)))) == []


def _comparable(found: snapshot.Snapshot) -> snapshot.Snapshot:
    """Without the index that a device gets when it is made again, and the order of addresses, which says nothing."""
    values = sorted(
        (str(path), path.read_text())
        for path in Path("/proc/sys/net/ipv4/conf").glob("*/*")
        if path.name in ("rp_filter", "arp_ignore", "arp_announce")
    )
    network = {
        name: _without(shown, "ifindex", "link_index", "ipv6")
        for name, shown in found["network"].items()
    }
    return {**found, "network": network, "sysctls": values}


def _without(shown: Any, *names: str) -> Any:
    if isinstance(shown, dict):
        return {key: _without(value, *names) for key, value in shown.items() if key not in names}
    if isinstance(shown, list):
        return sorted((_without(each, *names) for each in shown), key=repr)
    return shown
