# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans for a map's entries: pure functions of what is declared and what is there."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import MapInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.values import Number
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import map_entries
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.map_shapes import Shapes

MAP = MapInfo(7, "hash", "made", 1, 1, 4, 0, 0, 0, 0)
SHAPES = Shapes(Number(1), Number(1))
PIN = "/sys/fs/bpf/somewhere/made"


def entries(state: str = "present", purge: bool = False, **values: int) -> map_entries.Desired:
    return map_entries.desired(
        {
            "map": PIN,
            "state": state,
            "purge": purge,
            "entries": [{"key": key[1:], "value": value} for key, value in values.items()],
        }
    )


def observed(
    desired: map_entries.Desired, map_info: MapInfo = MAP, **held: int
) -> map_entries.Observed:
    declared = tuple(
        map_entries.Declared(bytes([int(key)]), bytes([value or 0]), key, value)
        for key, value in desired.entries
    )
    content = {bytes([int(key[1:])]): bytes([value]) for key, value in held.items()}
    keys = {entry.key for entry in declared}
    return map_entries.Observed(
        map_info,
        SHAPES,
        declared,
        {key: value for key, value in content.items() if key in keys},
        {key: value for key, value in content.items() if key not in keys and any(value)},
        sum(any(value) or map_info.type == "hash" for value in content.values()),
    )


def test_right_entries_in_any_order_are_no_change() -> None:
    desired = entries(k2=2, k1=1)
    assert map_entries.plan(desired, observed(desired, k1=1, k2=2)) == []


def test_one_change_tells_all() -> None:
    desired = entries(purge=True, k1=1, k2=9, k3=3)
    (change,) = map_entries.plan(desired, observed(desired, k1=1, k2=2, k4=4))
    assert str(change) == f"add 1, change 1, remove 1 entries of {PIN}"
    assert change.before == {"2": 2, "4": 4}
    assert change.after == {"2": 9, "3": 3}


def test_purging_happens_once_a_run() -> None:
    desired = entries(purge=True, k1=1)
    seen = observed(desired, k1=1, k4=4)
    assert len(map_entries.plan(desired, seen)) == 1
    desired.memory.purged = True
    assert map_entries.plan(desired, seen) == []


def test_arrays_are_set_to_zero() -> None:
    array = replace(MAP, type="array")
    desired = entries(purge=True, k1=1)
    (change,) = map_entries.plan(desired, observed(desired, array, k0=5, k1=1, k2=0))
    assert str(change) == f"change 1 entry of {PIN}"
    assert (change.before, change.after) == ({"0": 5}, {"0": 0})


def test_absent_keys() -> None:
    desired = entries(state="absent", k1=0, k2=0)
    (change,) = map_entries.plan(desired, observed(desired, k1=5, k3=5))
    assert (change.before, change.after) == ({"1": 5}, {})


def test_a_map_that_is_not_there_yet_is_predicted() -> None:
    desired = entries(k1=1)
    (change,) = map_entries.plan(desired, map_entries.Observed(None))
    assert "is not pinned yet" in change.warning
    absent = entries(state="absent", k1=1)
    assert map_entries.plan(absent, map_entries.Observed(None)) == []
