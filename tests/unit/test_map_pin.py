# SPDX-License-Identifier: GPL-3.0-or-later
"""The plans for pinned maps: pure functions of what is declared and what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import MapInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import map_options, map_pin
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure

MAP = MapInfo(7, "hash", "made", 1, 1, 4, 0, 0, 0, 0)
PIN = "/sys/fs/bpf/somewhere/made"


def pin(**params: Any) -> map_options.Desired:
    return map_options.desired({"pin": PIN, "state": "present", **params})


CREATE = {"type": "hash", "key_size": 1, "value_size": 1, "max_entries": 4}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({**CREATE, "max_entries": 5}, "max_entries is 4, not 5"),
        ({**CREATE, "type": "lru_hash"}, "type is hash, not lru_hash"),
        ({**CREATE, "flags": ["no_prealloc"]}, "flags is [], not ['no_prealloc']"),
        ({**CREATE, "name": "other"}, "name is made, not other"),
    ],
)
def test_another_shape_is_never_replaced(params: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure) as failure:
        map_pin.plan(pin(**params), map_pin.Observed("map", MAP, 0o600, None))
    assert message in str(failure.value)


def test_the_same_shape_is_no_change() -> None:
    seen = map_pin.Observed("map", MAP, 0o600, None)
    assert map_pin.plan(pin(**CREATE), seen) == []
    assert map_pin.plan(pin(**CREATE, name="made", mode="0600"), seen) == []
    (change,) = map_pin.plan(pin(**CREATE, mode=0o640), seen)
    assert change.action == "set the mode of"


def test_flags_that_the_kernel_adds_or_drops_are_no_difference() -> None:
    devices = replace(MAP, type="devmap", key_size=4, value_size=4, flags=0x80)
    shape = {"type": "devmap", "key_size": 4, "value_size": 4, "max_entries": 4}
    assert map_pin.plan(pin(**shape), map_pin.Observed("map", devices, 0o600, None)) == []


@pytest.mark.parametrize(
    ("empty", "keepers", "word", "lost"),
    [
        (False, (), False, True),
        (True, (), False, False),
        (False, ("program 3 (x)",), False, False),
        (False, (), True, False),
    ],
)
def test_data_goes_only_when_kept_elsewhere_or_with_a_word(
    empty: bool, keepers: tuple[str, ...], word: bool, lost: bool
) -> None:
    desired = pin(state="absent", discard_data=word)
    seen = map_pin.Observed("map", MAP, 0o600, None, keepers, empty)
    if lost:
        with pytest.raises(Failure, match="discard_data: true"):
            map_pin.plan(desired, seen)
    else:
        assert [change.action for change in map_pin.plan(desired, seen)] == ["unpin map"]


@pytest.mark.parametrize("kind", ["program", "link", "directory"])
@pytest.mark.parametrize("params", [CREATE, {"state": "absent"}, {"map_id": 7}])
def test_other_kinds_at_the_pin_are_left_alone(kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(Failure, match=f"holds a {kind}, not a map; it is left alone"):
        map_pin.plan(pin(**params), map_pin.Observed(kind, None, 0, None))


def test_a_foreign_pin_is_replaced_only_when_asked() -> None:
    other = replace(MAP, id=8)
    seen = map_pin.Observed("map", MAP, 0o600, other)
    with pytest.raises(Failure, match="force: true"):
        map_pin.plan(pin(map_id=8), seen)
    assert len(map_pin.plan(pin(map_id=8, force=True), seen)) == 1
    ours = map_options.desired({"pin": "made", "state": "present", "map_id": 8})
    assert len(map_pin.plan(ours, seen)) == 1


@pytest.mark.parametrize(
    ("mode", "bits"), [("0640", 0o640), ("640", 0o640), ("0o600", 0o600), (0o640, 0o640)]
)
def test_modes(mode: Any, bits: int) -> None:
    assert pin(**CREATE, mode=mode).mode == bits


@pytest.mark.parametrize("mode", ["u=rw", "0999", 640, True, "", 5.0])
def test_modes_that_are_none(mode: Any) -> None:
    with pytest.raises(Failure, match="mode: "):
        pin(**CREATE, mode=mode)


@pytest.mark.parametrize(
    ("flags", "bits"),
    [
        (["no_prealloc", "mmapable"], 0x401),
        (["BPF_F_NO_PREALLOC|BPF_F_ZERO_SEED"], 0x41),
        (["0x1,2"], 3),
        (None, 0),
    ],
)
def test_flags(flags: Any, bits: int) -> None:
    shape = pin(**CREATE, flags=flags).shape
    assert shape is not None
    assert shape.flags == bits
