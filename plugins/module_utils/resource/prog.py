# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Programs of an object, loaded and pinned, with the maps that they share.

A program is what was declared when the provenance it carries says so and its maps are those behind
the declared pins. Anything else at a pin of ours is replaced: loaded and verified first, then
renamed over the old one, which keeps serving its hook until the attachment takes the new one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..bpf import journal, libbpf, names, pins
from ..bpf.info import MapInfo, ProgramInfo
from . import prog_maps, prog_options
from .engine import Change
from .errors import Failure, from_os_error
from .load import Loaded, Recipe, Wanted, identity, load, reopened
from .object import opened
from .paths import check_parent, is_home, make_parent, prune_home
from .pinned import Pinned, describe, look, look_all, waiting

desired = prog_options.desired
Desired = prog_options.Desired


@dataclass(frozen=True)
class Observed:
    """The declared programs and maps by name, each with its pin; and what the object says.

    ``lost`` are the maps whose pin is gone and that the programs still use, ``leftovers`` the
    staging names that a killed run left behind.
    """

    sha256: str
    programs: Mapping[str, Pinned]
    maps: Mapping[str, Pinned]
    shapes: Mapping[str, libbpf.MapDecl]
    lost: Mapping[str, tuple[MapInfo, ...]]
    leftovers: tuple[str, ...]


def observe(desired: Desired) -> Observed:
    """Read the object and what is at the declared pins."""
    if desired.state == "absent":
        return _observe_absent(desired)
    for pin in desired.all_pins():
        check_parent(pin)
    recipe = desired.recipe
    if recipe.source.compiler == "bcc":
        prog_options.check_pins(desired.programs.values())
        return _observed(identity(recipe.source), desired.programs, {}, {})
    with opened(recipe.source) as (facts, _handle):
        prog_options.check(desired, facts)
        programs = desired.programs_of(facts.programs)
        map_pins = desired.map_pins_of(facts.maps)
        shapes = prog_maps.shapes(recipe, facts, map_pins)
        return _observed(facts.sha256, programs, map_pins, shapes)


def _observed(
    sha256: str,
    programs: Mapping[str, str],
    map_pins: Mapping[str, str],
    shapes: Mapping[str, libbpf.MapDecl],
) -> Observed:
    found, maps = look_all(programs), look_all(map_pins)
    leftovers = waiting((*programs.values(), *map_pins.values()))
    return Observed(sha256, found, maps, shapes, prog_maps.held(found, maps), leftovers)


def _observe_absent(desired: Desired) -> Observed:
    programs = look_all(desired.programs)
    if desired.pin_dir and not desired.programs:
        found = (look(pin) for pin in _listing(desired.pin_dir).values())
        programs = {os.path.basename(item.pin): item for item in found if _is_removable(item)}
    declared = desired.recipe.map_pins if desired.discard_maps else {}
    maps = {name: item for name, item in look_all(declared).items() if item.map}
    if desired.pin_maps and desired.discard_maps:
        for name, item in look_all(_listing(desired.pin_maps)).items():
            if item.map and (is_home(item.pin) or _is_bound(item, programs)):
                maps.setdefault(name, item)
    seen = {item.pin for item in (*programs.values(), *maps.values())}
    leftovers = waiting((*(item.pin for item in programs.values()), *declared.values()))
    return Observed("", programs, maps, {}, {}, tuple(pin for pin in leftovers if pin not in seen))


def _listing(directory: str) -> dict[str, str]:
    """Name and path of all that is in the directory, if there is one."""
    if not os.path.isdir(directory):
        return {}
    return {name: os.path.join(directory, name) for name in sorted(os.listdir(directory))}


def _is_removable(item: Pinned) -> bool:
    """Whether a program that was not named may go with the others of its directory."""
    return item.is_ours or (item.program is not None and is_home(item.pin))


def _is_bound(item: Pinned, programs: Mapping[str, Pinned]) -> bool:
    """Whether one of the programs that go was loaded with the map as one that it pins."""
    ids = {number for owner in programs.values() if owner.is_ours for _n, number in owner.bindings}
    return item.map is not None and item.map.id in ids


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """What leads from observed to desired. Raises Failure for what may not be displaced."""
    for item in observed.programs.values():
        _refuse_foreign(desired, item)
    changes = [
        Change("remove leftover", pin, {"left by": "a run that was killed"})
        for pin in observed.leftovers
    ]
    if desired.state == "absent":
        return changes + _plan_absent(observed)
    changes += _plan_maps(desired, observed)
    recipe = desired.recipe_for(observed.maps)
    current = {name: item.map.id for name, item in observed.maps.items() if item.map}
    current.update({name: kept[0].id for name, kept in observed.lost.items()})
    reasons = {
        name: _drift(desired, recipe.provenance(observed.sha256, name), item, current)
        for name, item in observed.programs.items()
    }
    if any(reasons.values()) or _fresh_maps(changes):
        for name, item in observed.programs.items():
            changes.append(_plan_program(recipe, name, item, observed.sha256, reasons[name]))
    return changes


def _plan_maps(desired: Desired, observed: Observed) -> list[Change]:
    recreate = desired.on_incompatible_map == "recreate"
    steps = (
        prog_maps.plan(observed.shapes[name], item, observed.lost.get(name, ()), recreate)
        for name, item in observed.maps.items()
    )
    return [step for step in steps if step is not None]


def _refuse_foreign(desired: Desired, item: Pinned) -> None:
    if item.kind not in ("", "program"):
        raise Failure(
            f"{item.pin} holds a {item.kind}, not a program; it is left alone: "
            "remove it or declare another pin"
        )
    if not item.program or item.is_ours or desired.force or is_home(item.pin):
        return
    raise Failure(
        f"{item.pin} holds a foreign program: {describe(item.program)}; it is left alone: "
        "unpin it, declare another pin, or set force: true for this one",
        prog_id=item.program.id,
    )


def _plan_absent(observed: Observed) -> list[Change]:
    """Maps first: while their programs are there, the run after a kill knows whose they are."""
    changes = []
    for item in observed.maps.values():
        if item.map:
            changes.append(Change("unpin map", item.pin, prog_maps.terms(item.map), None))
    for item in observed.programs.values():
        if item.program:
            changes.append(Change("unpin program", item.pin, _terms(item), None))
    return changes


def _drift(
    desired: Desired, expected: Mapping[str, str], item: Pinned, current: Mapping[str, int]
) -> list[str]:
    """Why the program at the pin is not the declared one; empty when it is."""
    if item.program is None:
        return ["not loaded"]
    ignored = {"maps", "release"} if desired.keeps_release else {"maps"}
    keys = {*expected, *item.marks} - ignored
    reasons = sorted(key for key in keys if expected.get(key) != item.marks.get(key))
    return reasons or prog_maps.rebound(item, current)


def _terms(item: Pinned) -> dict[str, Any] | None:
    """What is at the pin, as the diff shows it."""
    if item.program is None:
        return None
    if not item.is_ours:
        return {"foreign program": describe(item.program)}
    return {"type": item.program.type, **item.marks}


def _plan_program(
    recipe: Recipe, name: str, item: Pinned, sha256: str, reasons: list[str]
) -> Change:
    action = "replace program" if item.program else "load program"
    after: dict[str, Any] = {**recipe.provenance(sha256, name)}
    if recipe.type:
        after["type"] = names.PROG_TYPE_ALIASES.get(recipe.type, recipe.type)
    elif item.program and item.marks:
        after["type"] = item.program.type
    before = _terms(item)
    after["because"] = ", ".join(reasons) or "loaded together with its siblings"
    return Change(action, item.pin, before, after, detail=name)


def _programs_in(changes: Sequence[Change]) -> dict[str, str]:
    actions = ("load program", "replace program")
    return {change.detail: change.target for change in changes if change.action in actions}


def _fresh_maps(changes: Sequence[Change]) -> dict[str, str]:
    actions = ("create map", "recreate map")
    return {change.detail: change.target for change in changes if change.action in actions}


def _lost_maps(changes: Sequence[Change]) -> list[tuple[str, int, str]]:
    return [(*change.detail, change.target) for change in changes if change.action == "re-pin map"]


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Load for real, so that the host's own verifier has its say, and close again."""
    if desired.state == "present":
        with _loaded(desired, changes):
            pass


def _loaded(desired: Desired, changes: Sequence[Change]) -> AbstractContextManager[Loaded]:
    """All that the changes give a pin: programs and maps loaded anew, and maps that lost theirs."""
    lost = {name: number for name, number, _pin in _lost_maps(changes)}
    programs = tuple(_programs_in(changes))
    if not programs:
        return reopened(lost)
    recipe = desired.recipe
    if recipe.source.compiler != "bcc":
        with opened(recipe.source) as (facts, _handle):
            recipe = desired.recipe_for(desired.map_pins_of(facts.maps))
    return load(recipe, Wanted(programs, frozenset(_fresh_maps(changes)), lost))


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Unpin; or load, then give every pin its new object, or none of them."""
    if desired.state == "absent":
        for change in changes:
            pins.remove(change.target)
            prune_home(change.target)
        return
    with _loaded(desired, changes) as loaded:
        for change in changes:
            if change.action == "remove leftover":
                pins.remove(change.target)
        _pin_all(loaded, changes)


def _pin_all(loaded: Loaded, changes: Sequence[Change]) -> None:
    new = [(loaded.maps[name], pin) for name, _number, pin in _lost_maps(changes)]
    new += [(loaded.maps[name], pin) for name, pin in _fresh_maps(changes).items()]
    new += [(loaded.programs[name], pin) for name, pin in _programs_in(changes).items()]
    with journal.recording() as log:
        try:
            for fd, pin in new:
                make_parent(pin)
                pins.replace(fd, pin)
        except OSError as error:
            left = "; ".join(log.roll_back())
            now = f"but, {left}" if left else "every pin holds again what it held before"
            raise from_os_error(error, f"pin {error.filename}", now) from error


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The programs and maps that are at the declared pins."""
    return {
        "programs": [
            _program_report(name, item, item.program)
            for name, item in observed.programs.items()
            if item.program
        ],
        "maps": [
            {"name": name, "id": item.map.id, "pin": item.pin, **prog_maps.terms(item.map)}
            for name, item in observed.maps.items()
            if item.map
        ],
    }


def _program_report(name: str, item: Pinned, program: ProgramInfo) -> dict[str, Any]:
    return {
        "name": name,
        "id": program.id,
        "tag": program.tag,
        "type": program.type,
        "pin": item.pin,
        "sha256": item.marks.get("sha256", ""),
        "map_ids": list(program.map_ids),
        "verified_instructions": program.verified_instructions,
    }
