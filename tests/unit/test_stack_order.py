# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order resources are made, and which cannot stand beside each other."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import order
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import Resource

HOME = "/sys/fs/bpf/ebpf_fleet"
FFS = ("bpffs", {"path": "/sys/fs/bpf"})
PROG = ("bpf_prog", {"pin_dir": "web", "pin_maps": "web/maps"})
ENTRIES = ("bpf_map_entries", {"map": "web/maps/m", "entries": [{"key": 1}]})
FILE = ("config_file", {"path": "/etc/x"})
SERVICES = ("xdp_lb_services", {"pin_dir": "web"})
GATE = ("bpf_test_run", {"prog": "web/x"})
SOCKMAP = ("sockmap_attach", {"map": "web/maps/s", "prog": "web/msg"})
TC = ("tc_attach", {"interface": "e", "direction": "ingress", "prog": "web/t", "link": "web/tl"})
XDP = ("xdp_attach", {"interface": "e", "prog": "web/x", "link": "web/xl"})
CGROUP = ("cgroup_attach", {"cgroup": "c", "prog": "web/o", "link": "web/cl"})
BACKEND = ("xdp_lb_backend", {"services": []})
PIN = ("bpf_map_pin", {"pin": "web/copy", "prog": "web/x", "map": "m"})
ALL = [FFS, PROG, PIN, ENTRIES, FILE, SERVICES, GATE, SOCKMAP, TC, XDP, CGROUP, BACKEND]


def resources(*declared: tuple[str, dict[str, Any]]) -> tuple[Resource, ...]:
    return tuple(Resource(kind, params, at) for at, (kind, params) in enumerate(declared))


def kinds(*declared: tuple[str, dict[str, Any]]) -> list[str]:
    return [each.kind for each in order.ordered(resources(*declared))]


def test_ranks() -> None:
    """Whatever the declared order: programs before attachments, entries before the first packet."""
    found = kinds(*reversed(ALL))
    assert found[:3] == ["bpffs", "bpf_prog", "bpf_map_pin"]
    assert set(found[3:6]) == {"bpf_map_entries", "config_file", "xdp_lb_services"}
    assert found[6:9] == ["bpf_test_run", "sockmap_attach", "tc_attach"]
    assert set(found[9:11]) == {"xdp_attach", "cgroup_attach"}
    assert found[11:] == ["xdp_lb_backend"]


def test_equals_stay_as_declared() -> None:
    for declared in itertools.permutations([ENTRIES, FILE, SERVICES]):
        assert kinds(*declared) == [kind for kind, _params in declared]


def test_a_map_that_is_made_on_its_own_comes_before_the_program_that_uses_it() -> None:
    made = ("bpf_map_pin", {"pin": "web/own", "type": "hash"})
    user = ("bpf_prog", {"pin": "web/p", "maps": {"m": "web/own"}})
    assert kinds(user, made) == ["bpf_map_pin", "bpf_prog"]


def test_a_map_of_a_program_is_pinned_after_it() -> None:
    assert kinds(PIN, PROG) == ["bpf_prog", "bpf_map_pin"]


def test_programs_may_share_a_map() -> None:
    one = ("bpf_prog", {"pin": "web/p", "maps": {"m": "web/shared"}})
    two = ("bpf_prog", {"pin": "web/q", "maps": {"m": "web/shared"}})
    found = order.ordered(resources(one, two))
    assert [each.index for each in found] == [0, 1]


def test_a_circle() -> None:
    one = ("bpf_map_pin", {"pin": "web/a", "prog": "web/b", "map": "m"})
    two = ("bpf_map_pin", {"pin": "web/b", "prog": "web/a", "map": "m"})
    with pytest.raises(Failure, match=r"circle: resource 1 \(bpf_map_pin\), resource 2"):
        order.ordered(resources(one, two))


TWICE = [
    ("the same pin", PROG, PROG),
    ("the same program", ("bpf_prog", {"pin": "a"}), ("bpf_prog", {"pin": f"{HOME}/a"})),
    (
        "the same entry",
        ENTRIES,
        ("bpf_map_entries", {"map": "web/maps/m", "entries": [{"key": "1"}]}),
    ),
    ("the same link", XDP, ("tc_attach", {**TC[1], "link": "web/xl"})),
    ("the same hook of a map", SOCKMAP, ("sockmap_attach", {**SOCKMAP[1], "prog": "web/other"})),
    ("the same program at the same place", XDP, ("xdp_attach", {**XDP[1], "link": "web/l2"})),
    ("the same file", FILE, FILE),
    ("the same host", BACKEND, BACKEND),
]


@pytest.mark.parametrize(
    ("first", "second"), [pair[1:] for pair in TWICE], ids=[pair[0] for pair in TWICE]
)
def test_what_is_declared_twice(
    first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> None:
    with pytest.raises(Failure, match=r"resource 1 .* and resource 2 .* both declare"):
        order.ordered(resources(first, second))


BESIDE = [
    (GATE, GATE),
    (ENTRIES, ("bpf_map_entries", {"map": "web/maps/m", "entries": [{"key": 2}]})),
    (XDP, ("xdp_attach", {**XDP[1], "interface": "f", "link": "web/xl2"})),
    (
        ("bpf_prog", {"pin_dir": "web", "programs": ["a"]}),
        ("bpf_prog", {"pin_dir": "web", "programs": ["b"]}),
    ),
    (CGROUP, ("cgroup_attach", {**CGROUP[1], "cgroup": "d", "link": "web/cl2"})),
]


@pytest.mark.parametrize(("first", "second"), BESIDE)
def test_what_stands_beside_each_other(
    first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> None:
    assert len(order.ordered(resources(first, second))) == 2


def test_a_release_is_complete() -> None:
    order.require_complete("web", resources(*ALL))
    order.require_complete("web", resources(("xdp_attach", {**XDP[1], "prog": "other/x"})))
    for missing in (XDP, ENTRIES, SERVICES, SOCKMAP, GATE):
        with pytest.raises(Failure, match=r"needs .*/web/.*, which no resource of the stack makes"):
            order.require_complete("web", resources(missing))
