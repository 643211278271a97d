# SPDX-License-Identifier: GPL-3.0-or-later
"""What earlier manifests had and the new one has not: pure sets, before any host is asked."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.stack import manifest, prune
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import Manifest

OBJECT = f"sha256:{'ab' * 32}"
PROG = {
    "bpf_prog": {"object": OBJECT, "pin_dir": "web", "programs": ["a", "b"], "pin_maps": "web/maps"}
}
XDP = {"xdp_attach": {"interface": "e", "prog": "web/a", "link": "web/xl"}}
CGROUP = {"cgroup_attach": {"cgroup": "c", "prog": "web/b", "link": "web/cl", "mode": "link"}}
FILE = {"config_file": {"path": "/etc/x", "content": "x"}}
GATE = {"bpf_test_run": {"prog": "web/a", "packets": []}}


def entries(*keys: object) -> dict[str, Any]:
    found = [{"key": key, "value": 1} for key in keys]
    return {"bpf_map_entries": {"map": "web/maps/m", "entries": found, "purge": True}}


def stack(*resources: dict[str, Any], name: str = "web") -> Manifest:
    return manifest.parse({"layout": 1, "name": name, "release": "r", "resources": list(resources)})


def dropped(before: list[Manifest], now: Manifest) -> list[tuple[str, dict[str, Any]]]:
    return [
        (each.resource.kind, dict(each.params)) for each in prune.dropped(before, now.resources)
    ]


def test_nothing_of_the_same() -> None:
    whole = stack(PROG, XDP, CGROUP, FILE, GATE, entries(1))
    assert dropped([whole], whole) == []
    assert dropped([], whole) == []


def test_the_reverse_of_the_order_in_which_it_was_made() -> None:
    whole = stack(PROG, XDP, CGROUP, FILE, GATE, entries(1))
    found = [kind for kind, _params in dropped([whole], stack())]
    assert found == ["cgroup_attach", "xdp_attach", "bpf_map_entries", "config_file", "bpf_prog"]


def test_each_is_removed_with_what_it_was_made_with() -> None:
    ((kind, params),) = dropped([stack(PROG, CGROUP)], stack(PROG))
    assert kind == "cgroup_attach"
    assert params == {**CGROUP["cgroup_attach"], "state": "absent"}


def test_another_way_to_the_same_attachment_is_no_removal() -> None:
    direct = {"cgroup_attach": {**CGROUP["cgroup_attach"], "link": None, "mode": "multi"}}
    assert dropped([stack(PROG, direct)], stack(PROG, CGROUP)) == []
    renamed = {"xdp_attach": {**XDP["xdp_attach"], "link": "web/other"}}
    assert dropped([stack(PROG, XDP)], stack(PROG, renamed)) == []


def test_some_programs_of_an_object() -> None:
    one = {"bpf_prog": {**PROG["bpf_prog"], "programs": ["a"]}}
    ((kind, params),) = dropped([stack(PROG)], stack(one))
    assert (kind, params["programs"], params["discard_maps"]) == ("bpf_prog", ["b"], False)


def test_a_whole_object_goes_with_its_maps() -> None:
    ((_kind, params),) = dropped([stack(PROG)], stack())
    assert (params["programs"], params["discard_maps"]) == (["a", "b"], True)


def test_some_entries() -> None:
    ((_kind, params),) = dropped([stack(PROG, entries(1, "2", 3))], stack(PROG, entries("1", 2)))
    assert params["entries"] == [{"key": 3, "value": 1}]
    assert (params["state"], params["purge"]) == ("absent", False)


def test_several_manifests_of_before() -> None:
    """After a kill there are two: what both had is removed once, by the way of the first."""
    old = stack(PROG, {"config_file": {"path": "/etc/x", "content": "1"}})
    half = stack(PROG, {"config_file": {"path": "/etc/x", "content": "2"}}, CGROUP)
    found = dropped([old, half], stack(PROG))
    assert [kind for kind, _params in found] == ["config_file", "cgroup_attach"]
    assert found[0][1]["content"] == "1"


def test_entries_go_with_their_map() -> None:
    doomed = prune.dropped([stack(PROG, entries(1), XDP)], ())
    gone = {each.resource.kind: prune.goes_with_its_map("web", each, doomed) for each in doomed}
    assert gone == {"xdp_attach": False, "bpf_map_entries": True, "bpf_prog": False}


def test_entries_of_a_map_of_somebody_else_are_taken_out() -> None:
    there = {"bpf_map_entries": {"map": "/sys/fs/bpf/other/m", "entries": [{"key": 1, "value": 1}]}}
    doomed = prune.dropped([stack(there)], ())
    assert [prune.goes_with_its_map("web", each, doomed) for each in doomed] == [False]
