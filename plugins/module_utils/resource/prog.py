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
from dataclasses import dataclass, field
from typing import Any

from ..bpf import info, libbpf, maps, names, pins, provenance
from ..bpf.info import MapInfo, ProgramInfo
from ..bpf.syscall import Fd
from . import prog_options
from .engine import Change
from .errors import Failure
from .load import Loaded, Recipe, identity, load
from .object import Facts, opened
from .paths import check_parent, is_home, make_parent, prune_home

desired = prog_options.desired
Desired = prog_options.Desired


@dataclass(frozen=True)
class Pinned:
    """What is at a pin now: nothing, a program with its provenance, or another kind of thing."""

    pin: str
    kind: str = ""
    program: ProgramInfo | None = None
    map: MapInfo | None = None
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """The declared programs and maps by name, each with its pin; and what the object says."""

    sha256: str
    programs: Mapping[str, Pinned]
    maps: Mapping[str, Pinned]
    shapes: Mapping[str, libbpf.MapDecl]


def _look(pin: str) -> Pinned:
    if not os.path.lexists(pin):
        return Pinned(pin)
    if not os.path.isfile(pin):
        return Pinned(pin, "directory")
    try:
        with pins.get(pin) as fd:
            kind = pins.kind(fd)
            if kind == "program":
                program = info.program(fd)
                return Pinned(pin, kind, program, marks=provenance.read(program))
            return Pinned(pin, kind, map=info.map_(fd) if kind == "map" else None)
    except PermissionError:
        return Pinned(pin, "file")


def observe(desired: Desired) -> Observed:
    """Read the object and what is at the declared pins."""
    if desired.state == "absent":
        return _observe_absent(desired)
    for pin in desired.all_pins():
        check_parent(pin)
    recipe = desired.recipe
    if recipe.source.compiler == "bcc":
        return Observed(identity(recipe.source), _look_all(desired.programs), {}, {})
    with opened(recipe.source) as (facts, _handle):
        prog_options.check(desired, facts)
        programs = desired.programs_of(facts.programs)
        map_pins = desired.map_pins_of(facts.maps)
        shapes = _shapes(recipe, facts, map_pins)
        return Observed(facts.sha256, _look_all(programs), _look_all(map_pins), shapes)


def _look_all(declared: Mapping[str, str]) -> dict[str, Pinned]:
    return {name: _look(pin) for name, pin in declared.items()}


def _shapes(recipe: Recipe, facts: Facts, map_pins: Mapping[str, str]) -> dict[str, libbpf.MapDecl]:
    shapes: dict[str, libbpf.MapDecl] = {}
    for name in map_pins:
        decl = facts.maps[name]
        entries = recipe.max_entries.get(name, decl.max_entries)
        if decl.type == "perf_event_array" and not entries:
            entries = maps.possible_cpus()
        shapes[name] = libbpf.MapDecl(
            name, decl.type, decl.key_size, decl.value_size, entries, decl.flags, decl.internal
        )
    return shapes


def _observe_absent(desired: Desired) -> Observed:
    programs = _look_all(desired.programs)
    if desired.pin_dir and not desired.programs and os.path.isdir(desired.pin_dir):
        found = (_look(os.path.join(desired.pin_dir, name)) for name in os.listdir(desired.pin_dir))
        programs = {os.path.basename(item.pin): item for item in found if _is_removable(item)}
    declared = dict(desired.recipe.map_pins)
    if desired.pin_maps and desired.discard_maps and os.path.isdir(desired.pin_maps):
        for name in os.listdir(desired.pin_maps):
            declared.setdefault(name, os.path.join(desired.pin_maps, name))
    kept = _look_all(declared) if desired.discard_maps else {}
    return Observed("", programs, {n: p for n, p in kept.items() if p.kind == "map"}, {})


def _is_removable(item: Pinned) -> bool:
    """Whether a program that was not named may go with the others of its directory."""
    is_ours = item.marks.get("owner") == provenance.OWNER
    return item.program is not None and (is_ours or is_home(item.pin))


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """What leads from observed to desired. Raises Failure for what may not be displaced."""
    for item in observed.programs.values():
        _refuse_foreign(desired, item)
    if desired.state == "absent":
        return _plan_absent(observed)
    steps = [
        *(_plan_map(desired, observed.shapes[n], item) for n, item in observed.maps.items()),
    ]
    changes = [step for step in steps if step is not None]
    recipe = desired.recipe_for(observed.maps)
    reasons = {
        name: _drift(recipe, name, item, observed) for name, item in observed.programs.items()
    }
    if not changes and not any(reasons.values()):
        return []
    for name, item in observed.programs.items():
        changes.append(_plan_program(recipe, name, item, observed.sha256, reasons[name]))
    return changes


def _refuse_foreign(desired: Desired, item: Pinned) -> None:
    if item.kind not in ("", "program"):
        raise Failure(
            f"{item.pin} holds a {item.kind}, not a program; it is left alone: "
            "remove it or declare another pin"
        )
    if not item.program or item.marks.get("owner") == provenance.OWNER:
        return
    if desired.force or is_home(item.pin):
        return
    raise Failure(
        f"{item.pin} holds a foreign program: {_describe(item.program)}; it is left alone: "
        "unpin it, declare another pin, or set force: true for this one",
        prog_id=item.program.id,
    )


def _describe(program: ProgramInfo) -> str:
    return f"id {program.id}, {program.type} {program.name}, tag {program.tag}"


def _plan_absent(observed: Observed) -> list[Change]:
    changes = []
    for item in observed.programs.values():
        if item.program:
            changes.append(Change("unpin program", item.pin, _terms(item), None))
    for item in observed.maps.values():
        if item.map:
            changes.append(Change("unpin map", item.pin, _shape_terms(item.map), None))
    return changes


def _shape_terms(shape: MapInfo | libbpf.MapDecl) -> dict[str, Any]:
    return {
        "type": shape.type,
        "key_size": shape.key_size,
        "value_size": shape.value_size,
        "max_entries": shape.max_entries,
        "flags": shape.flags,
    }


def _plan_map(desired: Desired, shape: libbpf.MapDecl, item: Pinned) -> Change | None:
    wanted = _shape_terms(shape)
    if not item.kind:
        return Change("create map", item.pin, None, wanted, detail=shape.name)
    if item.map is None:
        raise Failure(
            f"{item.pin} holds a {item.kind}, not a map; it is left alone: remove it or declare "
            f"another pin for map {shape.name}"
        )
    found = _shape_terms(item.map)
    wrong = [
        f"{key} {found[key]}, not {wanted[key]}" for key in wanted if found[key] != wanted[key]
    ]
    if not wrong:
        return None
    if desired.on_incompatible_map == "recreate":
        warning = f"{item.pin} is replaced by an empty map: its entries are lost"
        return Change("recreate map", item.pin, found, wanted, warning, detail=shape.name)
    raise Failure(
        f"the map at {item.pin} does not fit map {shape.name} of the object: {'; '.join(wrong)}. "
        "Nothing was changed: set map_max_entries to the size it has, or "
        "on_incompatible_map: recreate to replace it by an empty one"
    )


def _drift(recipe: Recipe, name: str, item: Pinned, observed: Observed) -> list[str]:
    """Why the program at the pin is not the declared one; empty when it is."""
    if item.program is None:
        return ["not loaded"]
    expected = recipe.provenance(observed.sha256, name)
    found = {key: value for key, value in item.marks.items() if key != "maps"}
    reasons = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
    if reasons:
        return reasons
    return _rebound(item.marks.get("maps", ""), item.program.map_ids, observed.maps)


def _rebound(recorded: str, used: tuple[int, ...], declared: Mapping[str, Pinned]) -> list[str]:
    """The maps behind the declared pins that are not those the program was loaded with."""
    reasons = []
    for binding in recorded.split():
        name, _mark, number = binding.partition("=")
        now = declared[name].map if name in declared else None
        if now is None or now.id != int(number) or now.id not in used:
            reasons.append(f"map {name}")
    return reasons


def _terms(item: Pinned) -> dict[str, Any] | None:
    """What is at the pin, as the diff shows it."""
    if item.program is None:
        return None
    if item.marks.get("owner") != provenance.OWNER:
        return {"foreign program": _describe(item.program)}
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
    return {c.detail: c.target for c in changes if c.action.endswith(" program") and c.detail}


def _fresh_maps(changes: Sequence[Change]) -> dict[str, str]:
    return {c.detail: c.target for c in changes if c.action.endswith("create map")}


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Load for real, so that the host's own verifier has its say, and close again."""
    if desired.state == "present":
        with load(*_request(desired, changes)):
            pass


def _request(
    desired: Desired, changes: Sequence[Change]
) -> tuple[Recipe, tuple[str, ...], frozenset[str]]:
    recipe = desired.recipe
    if recipe.source.compiler != "bcc":
        with opened(recipe.source) as (facts, _handle):
            recipe = desired.recipe_for(desired.map_pins_of(facts.maps))
    return recipe, tuple(_programs_in(changes)), frozenset(_fresh_maps(changes))


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Unpin; or load, then give every pin its new object, or none of them."""
    if desired.state == "absent":
        for change in changes:
            pins.remove(change.target)
            prune_home(change.target)
        return
    with load(*_request(desired, changes)) as loaded:
        for change in changes:
            make_parent(change.target)
        _pin_all(loaded, changes)


def _pin_all(loaded: Loaded, changes: Sequence[Change]) -> None:
    fresh = _fresh_maps(changes)
    new = [(loaded.maps[name], pin) for name, pin in fresh.items()]
    new += [(loaded.programs[name], pin) for name, pin in _programs_in(changes).items()]
    done: list[tuple[Fd | None, str]] = []
    try:
        for fd, pin in new:
            old = pins.get(pin) if os.path.lexists(pin) else None
            done.append((old, pin))
            pins.replace(fd, pin)
    except OSError:
        for old, pin in reversed(done):
            _restore(old, pin)
        raise
    finally:
        for old, _pin in done:
            if old:
                old.close()


def _restore(old: Fd | None, pin: str) -> None:
    pins.remove(pins.staging_path(pin))
    if old is None:
        pins.remove(pin)
    else:
        pins.replace(old, pin)


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The programs and maps that are at the declared pins."""
    return {
        "programs": [
            _program_report(name, item, item.program)
            for name, item in observed.programs.items()
            if item.program
        ],
        "maps": [
            {"name": name, "id": item.map.id, "pin": item.pin, **_shape_terms(item.map)}
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
