# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The options of ``bpf_prog`` as values, and what can be wrong with them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..bpf import libbpf, names, provenance
from . import rodata
from .errors import Failure
from .load import Recipe
from .object import Facts, Source
from .paths import pin_path

_RESERVED = ("owner", "sha256", "config", "program", "constants", "maps", "stack", "release")


@dataclass(frozen=True)
class Desired:
    """What is declared. ``programs`` maps names to pins; empty means all, in ``pin_dir``.

    With ``keeps_release`` a program stays that differs by its mark ``release`` alone. So it is in a
    stack: what a program is, is its content; the mark says which release loaded it, and a new
    release that changes something else does not load it again.
    """

    state: str
    recipe: Recipe
    programs: Mapping[str, str] = field(default_factory=dict)
    pin_dir: str = ""
    pin_maps: str = ""
    on_incompatible_map: str = "fail"
    force: bool = False
    discard_maps: bool = False
    keeps_release: bool = False

    def programs_of(self, declared: Iterable[str]) -> dict[str, str]:
        """Name and pin of each program, given the names that the object has."""
        names_declared = list(declared)
        if self.programs:
            sole = names_declared[0] if len(names_declared) == 1 else ""
            return {name or sole: pin for name, pin in self.programs.items()}
        return {name: os.path.join(self.pin_dir, name) for name in names_declared}

    def map_pins_of(self, declared: Mapping[str, libbpf.MapDecl]) -> dict[str, str]:
        """Name and pin of each map that is pinned: those of ``maps``, and all in ``pin_maps``."""
        found = dict(self.recipe.map_pins)
        if self.pin_maps:
            for name in external(declared):
                found.setdefault(name, os.path.join(self.pin_maps, name))
        return found

    def recipe_for(self, map_pins: Mapping[str, Any]) -> Recipe:
        """The recipe with every pinned map in it; values are pins, or things that have one."""
        resolved = {name: getattr(item, "pin", item) for name, item in map_pins.items()}
        return replace(self.recipe, map_pins=resolved)

    def all_pins(self) -> list[str]:
        """Every pin that the options name."""
        found = [*self.programs.values(), *self.recipe.map_pins.values()]
        found += [os.path.join(base, "any") for base in (self.pin_dir, self.pin_maps) if base]
        return found


def external(declared: Mapping[str, libbpf.MapDecl]) -> list[str]:
    """The maps that can be shared: not those of globals, nor the tables of struct_ops."""
    return [
        name for name, decl in declared.items() if not decl.internal and decl.type != "struct_ops"
    ]


def desired(params: Mapping[str, Any]) -> Desired:
    """The declared state from the module's parameters. Raises Failure for what makes no sense."""
    programs, pin_dir = _targets(params)
    wanted = Desired(
        state=params["state"],
        recipe=_recipe(params),
        programs=programs,
        pin_dir=pin_dir,
        pin_maps=pin_path(params["pin_maps"]) if params["pin_maps"] else "",
        on_incompatible_map=params["on_incompatible_map"],
        force=params["force"],
        discard_maps=params["discard_maps"],
    )
    if wanted.state == "present":
        _check_source(wanted)
    return wanted


def _targets(params: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    if params["pin"]:
        return {params["program"] or "": pin_path(params["pin"])}, ""
    pin_dir = pin_path(params["pin_dir"] or "")
    return {name: pin_path(f"{pin_dir}/{name}") for name in params["programs"] or ()}, pin_dir


def _map_pins(declared: Mapping[str, Any]) -> dict[str, str]:
    for name, pin in declared.items():
        if not isinstance(pin, str):
            raise Failure(
                f"maps: {name}: {pin!r} is no pin; write the path where the map is pinned"
            )
    return {name: pin_path(pin) for name, pin in declared.items()}


def _recipe(params: Mapping[str, Any]) -> Recipe:
    compiler = params["compiler"] if params["source"] else ""
    source = Source(
        path=params["source"] or params["object"] or "",
        compiler=compiler,
        cflags=tuple(params["cflags"] or ()),
        sha256=params["sha256"] or "",
    )
    return Recipe(
        source=source,
        type=_name(names.PROG_TYPES, names.PROG_TYPE_ALIASES, "type", params["type"]),
        attach_type=_name(
            names.ATTACH_TYPES, names.ATTACH_TYPE_ALIASES, "attach_type", params["attach_type"]
        ),
        map_pins=_map_pins(params["maps"] or {}),
        max_entries=_sizes(params["map_max_entries"] or {}),
        constants=params["constants"] or {},
        marks=_marks(params),
    )


def _name(table: tuple[str, ...], aliases: dict[str, str], option: str, value: str | None) -> str:
    if not value:
        return ""
    canonical = aliases.get(value, value)
    if canonical not in table:
        raise Failure(f"{option}: {value!r} is none; known are {', '.join(sorted(table))}")
    return canonical


def _sizes(declared: Mapping[str, Any]) -> dict[str, int]:
    sizes = {}
    for name, count in declared.items():
        text = str(count)
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 2**32):
            raise Failure(f"map_max_entries: {name}: {count!r} is no number from 1 to 4294967295")
        sizes[name] = int(text)
    return sizes


def _marks(params: Mapping[str, Any]) -> dict[str, str]:
    marks = {key: params[key] for key in ("stack", "release") if params[key]}
    for key, value in (params["labels"] or {}).items():
        if not provenance.is_key(key) or key in _RESERVED:
            raise Failure(
                f"labels: {key!r} cannot be used; a label is a C identifier and none of "
                f"{', '.join(_RESERVED)}"
            )
        if not isinstance(value, (str, int, float)):
            raise Failure(f"labels: {key}: {value!r} is neither text nor a number")
        marks[key] = str(value)
    return marks


def _check_source(wanted: Desired) -> None:
    recipe = wanted.recipe
    if recipe.source.compiler != "bcc":
        return
    unsupported = (recipe.map_pins, wanted.pin_maps, recipe.max_entries, recipe.constants)
    if any(unsupported) or recipe.attach_type:
        raise Failure(
            "compiler: bcc takes no maps, pin_maps, map_max_entries, constants or attach_type; "
            "write BPF_TABLE_PINNED in the source and -D in cflags, or use compiler: clang"
        )
    if not recipe.type or not wanted.programs or "" in wanted.programs:
        raise Failure("compiler: bcc needs type and the names of the programs (program, programs)")


def check(wanted: Desired, facts: Facts) -> None:
    """Hold the options against the object. Raises Failure that lists what the object has."""
    if not facts.programs:
        raise Failure(f"{facts.path} holds no program")
    if "" in wanted.programs_of(facts.programs):
        listed = ", ".join(sorted(facts.programs))
        raise Failure(f"{facts.path} has several programs; name one as program: {listed}")
    _known("program", wanted.programs_of(facts.programs), facts.programs, facts.path)
    _known("map", wanted.recipe.map_pins, external(facts.maps), facts.path)
    _known("map", wanted.recipe.max_entries, external(facts.maps), facts.path)
    map_pins = wanted.map_pins_of(facts.maps)
    check_pins([*wanted.programs_of(facts.programs).values(), *map_pins.values()])
    for name in wanted.programs_of(facts.programs):
        decl = facts.programs[name]
        if decl.type == "unspec" and not wanted.recipe.type:
            raise Failure(
                f"section {decl.section!r} of program {name} says no type that this libbpf knows; "
                "set type (sock_ops, sk_msg, xdp, sched_cls, ...)"
            )
    rodata.contents(facts, wanted.recipe.constants)


def check_pins(declared: Iterable[str]) -> None:
    """Each pin is of one object, and none is a directory that another lies in."""
    seen: set[str] = set()
    for pin in declared:
        if pin in seen:
            raise Failure(f"{pin} is declared as the pin of two objects; give each its own")
        seen.add(pin)
    for pin in seen:
        above = os.path.dirname(pin)
        while above != "/":
            if above in seen:
                raise Failure(f"{above} is declared as a pin, and as the directory of {pin}")
            above = os.path.dirname(above)


def _known(what: str, wanted: Iterable[str], available: Iterable[str], path: str) -> None:
    has = sorted(available)
    for name in wanted:
        if name not in has:
            listed = ", ".join(has) or "none"
            raise Failure(f"{path} has no {what} {name!r}; it has: {listed}")
