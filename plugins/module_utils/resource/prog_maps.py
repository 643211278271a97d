# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The maps that a declared program shares: created, re-used from their pins, or pinned again.

A map whose pin is gone lives on while a loaded program uses it. The program at the declared pin
says in its provenance which map that is, so the map gets its pin back instead of an empty one
taking its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..bpf import info, libbpf, maps
from ..bpf.info import MapInfo
from .engine import Change
from .errors import Failure
from .load import Recipe
from .object import Facts
from .pinned import Pinned

_DEVMAPS = ("devmap", "devmap_hash")
_F_RDONLY_PROG = 1 << 7  # the kernel sets it on device maps itself: dev_map_init_map, 5.3


def shapes(recipe: Recipe, facts: Facts, map_pins: Mapping[str, str]) -> dict[str, libbpf.MapDecl]:
    """What the pinned maps are to be, as the kernel will describe them."""
    found: dict[str, libbpf.MapDecl] = {}
    for name in map_pins:
        decl = facts.maps[name]
        entries = maps.entries(decl.type, recipe.max_entries.get(name, decl.max_entries))
        flags = decl.flags | (_F_RDONLY_PROG if decl.type in _DEVMAPS else 0)
        found[name] = libbpf.MapDecl(
            name, decl.type, decl.key_size, decl.value_size, entries, flags, decl.internal
        )
    return found


def held(
    programs: Mapping[str, Pinned], pinned: Mapping[str, Pinned]
) -> dict[str, tuple[MapInfo, ...]]:
    """For each map that has lost its pin, those that the programs at the pins use as that map."""
    found: dict[str, tuple[MapInfo, ...]] = {}
    for name, item in pinned.items():
        if item.kind:
            continue
        ids = {
            number
            for owner in programs.values()
            for bound, number in owner.bindings
            if bound == name and owner.is_ours and owner.program and number in owner.program.map_ids
        }
        if ids:
            found[name] = tuple(_info(number) for number in sorted(ids))
    return found


def _info(map_id: int) -> MapInfo:
    with info.open_map(map_id) as fd:
        return info.map_(fd)


def terms(shape: MapInfo | libbpf.MapDecl) -> dict[str, Any]:
    """A map's shape, as the diff shows it."""
    return {
        "type": shape.type,
        "key_size": shape.key_size,
        "value_size": shape.value_size,
        "max_entries": shape.max_entries,
        "flags": shape.flags,
    }


def plan(
    shape: libbpf.MapDecl, item: Pinned, kept: tuple[MapInfo, ...], recreate: bool
) -> Change | None:
    """The change that one map's pin needs; ``kept`` are the maps that lost it and are in use."""
    if item.kind and item.map is None:
        raise Failure(
            f"{item.pin} holds a {item.kind}, not a map; it is left alone: remove it or declare "
            f"another pin for map {shape.name}"
        )
    if len(kept) > 1:
        ids = ", ".join(str(one.id) for one in kept)
        raise Failure(
            f"nothing is pinned at {item.pin}, and the loaded programs use different maps as "
            f"{shape.name}, ids {ids}: pin the one to keep there (ebpf.fleet.bpf_map_pin, map_id)"
        )
    there = item.map or (kept[0] if kept else None)
    wanted = terms(shape)
    if there is None:
        return Change("create map", item.pin, None, wanted, detail=shape.name)
    found = terms(there)
    wrong = [
        f"{key} {found[key]}, not {wanted[key]}" for key in wanted if found[key] != wanted[key]
    ]
    if wrong and not recreate:
        whose = "" if item.map else f", id {there.id}, which lost its pin and is still in use,"
        raise Failure(
            f"the map at {item.pin}{whose} does not fit map {shape.name} of the object: "
            f"{'; '.join(wrong)}. Set map_max_entries to the size it has, or "
            "on_incompatible_map: recreate to replace it by an empty one"
        )
    if wrong:
        warning = f"{item.pin} is replaced by an empty map: its entries are lost"
        return Change("recreate map", item.pin, found, wanted, warning, detail=shape.name)
    if item.map:
        return None
    after = {**wanted, "id": there.id}
    return Change("re-pin map", item.pin, None, after, detail=(shape.name, there.id))


def rebound(owner: Pinned, current: Mapping[str, int]) -> list[str]:
    """The maps behind the declared pins that are not those the program was loaded with."""
    used = owner.program.map_ids if owner.program else ()
    return [
        f"map {name}"
        for name, number in owner.bindings
        if current.get(name) != number or number not in used
    ]
