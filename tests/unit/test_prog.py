# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the plan of bpf_prog makes of what it sees; and the words for defective objects."""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import elf, libbpf, maps
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import MapInfo, ProgramInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.libbpf import MapDecl
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import prog, prog_options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.pinned import Pinned
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.prog import Observed

HOME = "/sys/fs/bpf/ebpf_fleet/web"
SHA = "ab" * 32
SHAPE = MapDecl("things", "hash", 4, 8, 16, 0, False)


def params(**changed: Any) -> dict[str, Any]:
    options: dict[str, Any] = dict.fromkeys(
        (
            "sha256",
            "source",
            "type",
            "attach_type",
            "maps",
            "pin_maps",
            "map_max_entries",
            "pin",
            "program",
            "programs",
            "cflags",
            "constants",
            "stack",
            "release",
            "labels",
        )
    )
    options.update(
        state="present",
        object="object.o",
        compiler="clang",
        pin_dir="web",
        on_incompatible_map="fail",
        force=False,
        discard_maps=False,
    )
    return {**options, **changed}


def program(number: int, *map_ids: int) -> ProgramInfo:
    return ProgramInfo(number, "xdp", "first", "00" * 8, map_ids, 0, 0, 0, True, 9, 0, 0)


def map_info(number: int, max_entries: int = 16) -> MapInfo:
    return MapInfo(number, "hash", "things", 4, 8, max_entries, 0, 0, 0, 0)


def observed(first: Pinned, things: Pinned | None = None, *kept: MapInfo) -> Observed:
    maps = {"things": things} if things else {}
    shapes = {"things": SHAPE} if things else {}
    lost = {"things": kept} if kept else {}
    return Observed(SHA, {"first": first}, maps, shapes, lost, ())


def loaded(
    desired: prog.Desired, pinned: Mapping[str, Pinned] | None = None, **marks: str
) -> Pinned:
    recipe = desired.recipe_for(pinned or {})
    own = recipe.provenance(SHA, "first")
    return Pinned(f"{HOME}/first", "program", program(7, 3), marks={**own, **marks})


def test_nothing_pinned_is_loaded() -> None:
    desired = prog.desired(params())
    changes = prog.plan(desired, observed(Pinned(f"{HOME}/first")))
    assert [str(change) for change in changes] == [f"load program {HOME}/first"]
    assert changes[0].before is None


def test_what_was_declared_is_left_alone() -> None:
    desired = prog.desired(params(constants={"limit": 3}, labels={"team": "net"}))
    assert prog.plan(desired, observed(loaded(desired))) == []


@pytest.mark.parametrize(
    ("changed", "because"),
    [
        ({"constants": {"limit": 4}}, "config, constants"),
        ({"labels": {"team": "net"}}, "team"),
        ({"release": "2"}, "release"),
        ({"type": "sched_cls"}, "config"),
    ],
)
def test_any_difference_replaces(changed: dict[str, Any], because: str) -> None:
    there = loaded(prog.desired(params()))
    changes = prog.plan(prog.desired(params(**changed)), observed(there))
    assert [change.action for change in changes] == ["replace program"]
    assert changes[0].after is not None
    assert changes[0].after["because"] == because


def test_a_foreign_program_in_our_directory_is_drift() -> None:
    there = Pinned(f"{HOME}/first", "program", program(9))
    changes = prog.plan(prog.desired(params()), observed(there))
    assert changes[0].before == {"foreign program": "id 9, xdp first, tag 0000000000000000"}


def test_a_foreign_program_elsewhere_is_refused_unless_forced() -> None:
    there = Pinned("/sys/fs/bpf/first", "program", program(9))
    with pytest.raises(Failure, match="holds a foreign program: id 9"):
        prog.plan(prog.desired(params(pin_dir="/sys/fs/bpf")), observed(there))
    forced = prog.desired(params(pin_dir="/sys/fs/bpf", force=True))
    assert prog.plan(forced, observed(there))


def test_another_map_behind_the_pin_is_drift() -> None:
    desired = prog.desired(params(maps={"things": "web/things"}))
    pin = f"{HOME}/things"
    same = Pinned(pin, "map", map=map_info(3))
    first = loaded(desired, {"things": same}, maps="things=3")
    assert prog.plan(desired, observed(first, same)) == []
    other = Pinned(pin, "map", map=map_info(4))
    changes = prog.plan(desired, observed(first, other))
    assert changes[0].after is not None
    assert changes[0].after["because"] == "map things"


def test_a_map_of_another_shape() -> None:
    wrong = Pinned(f"{HOME}/things", "map", map=map_info(3, max_entries=8))
    with pytest.raises(Failure, match="max_entries 8, not 16"):
        prog.plan(
            prog.desired(params(maps={"things": "web/things"})),
            observed(Pinned(f"{HOME}/first"), wrong),
        )
    recreate = params(maps={"things": "web/things"}, on_incompatible_map="recreate")
    changes = prog.plan(prog.desired(recreate), observed(Pinned(f"{HOME}/first"), wrong))
    assert [change.action for change in changes] == ["recreate map", "load program"]
    assert "its entries are lost" in changes[0].warning


def test_a_map_that_lost_its_pin_gets_it_back_and_nothing_is_loaded() -> None:
    desired = prog.desired(params(maps={"things": "web/things"}))
    gone = Pinned(f"{HOME}/things")
    first = loaded(desired, {"things": gone}, maps="things=3")
    changes = prog.plan(desired, observed(first, gone, map_info(3)))
    assert [str(change) for change in changes] == [f"re-pin map {HOME}/things"]
    assert changes[0].after is not None
    assert changes[0].after["id"] == 3


def test_a_lost_map_is_kept_when_the_program_is_replaced() -> None:
    gone = Pinned(f"{HOME}/things")
    old = prog.desired(params(maps={"things": "web/things"}))
    first = loaded(old, {"things": gone}, maps="things=3")
    new = prog.desired(params(maps={"things": "web/things"}, release="2"))
    changes = prog.plan(new, observed(first, gone, map_info(3)))
    assert [change.action for change in changes] == ["re-pin map", "replace program"]


def test_a_lost_map_of_another_shape_is_no_less_a_map_with_data() -> None:
    gone = Pinned(f"{HOME}/things")
    first = Pinned(f"{HOME}/first")
    lost = map_info(3, max_entries=8)
    with pytest.raises(Failure, match=r"id 3, which lost its pin.* max_entries 8, not 16"):
        prog.plan(prog.desired(params(maps={"things": "web/things"})), observed(first, gone, lost))
    recreate = params(maps={"things": "web/things"}, on_incompatible_map="recreate")
    changes = prog.plan(prog.desired(recreate), observed(first, gone, lost))
    assert [change.action for change in changes] == ["recreate map", "load program"]


def test_which_of_two_lost_maps_is_the_users_choice() -> None:
    desired = prog.desired(params(maps={"things": "web/things"}))
    gone = Pinned(f"{HOME}/things")
    with pytest.raises(Failure, match=r"use different maps as things, ids 3, 4: pin the one"):
        prog.plan(desired, observed(Pinned(f"{HOME}/first"), gone, map_info(3), map_info(4)))


def test_a_damaged_record_of_maps_is_no_record() -> None:
    marks = {"maps": "things=3 other=x = a=b=c 7"}
    assert list(Pinned("pin", "program", program(7, 3), marks=marks).bindings) == [("things", 3)]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pin_dir": None, "pin": ""}, "is no pin path"),
        ({"maps": {"things": None}}, "maps: things: None is no pin"),
        ({"maps": {"things": ["a"]}}, "is no pin"),
        ({"map_max_entries": {"things": "\u00b2"}}, "is no number from 1"),
        ({"map_max_entries": {"things": True}}, "is no number from 1"),
        ({"labels": {"a": [1]}}, "neither text nor a number"),
        ({"labels": {"a": None}}, "neither text nor a number"),
        ({"labels": {"a" * 101: 1}}, "cannot be used"),
        ({"programs": ["../x"]}, "is no pin path"),
        ({"programs": [""], "state": "absent"}, "is no pin path"),
    ],
)
def test_options_that_make_no_sense(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(Failure, match=words):
        prog.desired(params(**changed))


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        (["/a/b", "/a/c", "/a/b"], "/a/b is declared as the pin of two objects"),
        (["/a/b/c", "/a/b"], "/a/b is declared as a pin, and as the directory of /a/b/c"),
    ],
)
def test_pins_that_are_in_each_others_way(pins: list[str], words: str) -> None:
    with pytest.raises(Failure, match=words):
        prog_options.check_pins(pins)


@pytest.mark.parametrize(
    ("kind", "wanted", "made"),
    [
        ("ringbuf", 1, os.sysconf("SC_PAGE_SIZE")),
        ("ringbuf", 65537, 131072),
        ("user_ringbuf", 65536, 65536),
        ("ringbuf", 0, 0),
        ("hash", 5000, 5000),
        ("perf_event_array", 0, maps.possible_cpus()),
        ("perf_event_array", 3, 3),
    ],
)
def test_what_becomes_of_a_size(kind: str, wanted: int, made: int) -> None:
    assert maps.entries(kind, wanted) == made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ELF file"),
        (b"text", "is not an ELF file"),
        (b"\x7fELF\2\1", "is truncated"),
        (b"\x7fELF" + b"\1" * 80, "is a 32-bit ELF file"),
        (b"\x7fELF\2\1".ljust(16, b"\0") + struct.pack("<HH", 1, 62).ljust(64), "x86-64"),
        (b"\x7fELF\2\2".ljust(16, b"\0") + struct.pack(">HH", 1, 247).ljust(64), "big-endian"),
        (b"\x7fELF\2\1".ljust(16, b"\0") + struct.pack("<HH", 3, 247).ljust(64), "is linked"),
        (b"\x7fELF\2\1".ljust(16, b"\0") + struct.pack("<HH", 1, 247).ljust(64, b"x"), "damaged"),
    ],
)
def test_defective_objects_are_named(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        elf.parse(content)


def test_an_object_that_crashes_libbpf_does_not_crash_the_run(tmp_path: Path) -> None:
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"")
    library = SimpleNamespace(bpf_object__open_file=lambda *_: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(libbpf.LoadError) as caught:
        libbpf.require_sound(library, str(broken))
    assert "damaged" in caught.value.log
