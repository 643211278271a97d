# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""One pinned map: made here, or one that exists already and gets a name.

A map that holds data is let go only when something else is seen to keep it, or with the
operator's word.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ..bpf import files, info, map_contents, maps, pins, references
from ..bpf.info import MapInfo
from ..bpf.syscall import Fd
from .engine import Change
from .errors import Failure, from_os_error
from .map_options import Desired, Shape, desired, flag_names
from .paths import check_parent, is_home, make_parent, prune_home

__all__ = ["Desired", "apply", "desired", "observe", "plan", "rehearse", "report"]

_TOLD_REFERENCES = 3


@dataclass(frozen=True)
class Observed:
    """What is at the pin, and which map is to be there."""

    kind: str  # "" when there is nothing
    map: MapInfo | None
    mode: int  # permission bits of the pin
    source: MapInfo | None  # the existing map that is to be pinned
    keepers: tuple[str, ...] = ()  # what keeps the map at the pin alive besides the pin
    empty: bool = True


def observe(desired: Desired) -> Observed:
    """Read the pin and the source; who else keeps the map, when it is to be let go."""
    exists = os.path.lexists(desired.pin)
    if exists or desired.state == "present":
        check_parent(desired.pin)
    source = _source(desired) if desired.state == "present" else None
    if not exists:
        return Observed("", None, 0, source)
    if os.path.isdir(desired.pin):
        return Observed("directory", None, 0, source)
    with pins.get(desired.pin) as fd:
        kind = pins.kind(fd)
        if kind != "map":
            return Observed(kind, None, 0, source)
        mode = stat.S_IMODE(os.stat(desired.pin).st_mode)
        found = info.map_(fd)
        if desired.state == "present" and (source is None or source.id == found.id):
            return Observed(kind, found, mode, source)
        empty = map_contents.is_empty(fd, found)
    keepers = islice(references.of_map(found.id, desired.pin), _TOLD_REFERENCES)
    return Observed(kind, found, mode, source, () if empty else tuple(keepers), empty)


def _source(desired: Desired) -> MapInfo | None:
    """The existing map that was declared; None when a new one was, or its program is not there."""
    if desired.map_id:
        try:
            with info.open_map(desired.map_id) as fd:
                return info.map_(fd)
        except FileNotFoundError as error:
            raise Failure(
                f"no map has id {desired.map_id}: ids change with every load; "
                "name the map by prog and map, or look its id up with bpf_info"
            ) from error
    if not desired.prog or not os.path.lexists(desired.prog):
        return None
    return _map_of_program(desired.prog, desired.map)


def _map_of_program(prog: str, name: str) -> MapInfo:
    with pins.get(prog) as fd:
        if pins.kind(fd) != "program":
            raise Failure(f"prog: {prog} holds a {pins.kind(fd)}, not a program")
        program = info.program(fd)
    found = []
    for map_id in program.map_ids:
        with info.open_map(map_id) as fd:
            found.append(info.map_(fd))
    named = [item for item in found if item.name == maps.kernel_name(name)]
    if len(named) == 1:
        return named[0]
    listed = ", ".join(f"{item.name} (id {item.id})" for item in found) or "no map at all"
    if named:
        raise Failure(
            f"{prog} uses {len(named)} maps that the kernel calls {named[0].name}: it keeps 15 "
            f"characters of a name; give map_id instead. The program uses {listed}"
        )
    raise Failure(f"{prog} (program {program.id}) uses no map {name}; it uses {listed}")


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """What leads from observed to desired. Raises Failure where that could lose something."""
    if observed.kind not in ("", "map"):
        raise Failure(
            f"{desired.pin} holds a {observed.kind}, not a map; it is left alone: "
            "remove it or declare another pin"
        )
    if desired.state == "absent":
        return _plan_absent(desired, observed)
    if observed.map is None:
        return [_plan_new(desired, observed)]
    if desired.shape is not None:
        _require_shape(desired, desired.shape, observed.map)
    elif observed.source is None or observed.source.id != observed.map.id:
        return [_plan_replace(desired, observed, observed.map)]
    if desired.mode is None or desired.mode == observed.mode:
        return []
    before, after = _terms(observed.map, observed.mode), _terms(observed.map, desired.mode)
    return [Change("set the mode of", desired.pin, before, after)]


def _plan_absent(desired: Desired, observed: Observed) -> list[Change]:
    if observed.map is None:
        return []
    _require_no_loss(desired, observed, observed.map)
    return [Change("unpin map", desired.pin, _terms(observed.map, observed.mode), None)]


def _plan_new(desired: Desired, observed: Observed) -> Change:
    mode = 0o600 if desired.mode is None else desired.mode
    if desired.shape is not None:
        after = {**desired.shape.terms(), "mode": f"{mode:04o}"}
        return Change("create map", desired.pin, None, after)
    if observed.source is None:
        after = {"map": desired.map, "prog": desired.prog, "mode": f"{mode:04o}"}
        return Change("pin map", desired.pin, None, after, _missing_prog(desired))
    return Change("pin map", desired.pin, None, _terms(observed.source, mode))


def _missing_prog(desired: Desired) -> str:
    return f"{desired.prog} is not pinned yet; a real run needs it"


def _plan_replace(desired: Desired, observed: Observed, found: MapInfo) -> Change:
    mode = observed.mode if desired.mode is None else desired.mode
    before = _terms(found, observed.mode)
    if observed.source is None:
        after: dict[str, Any] = {"map": desired.map, "prog": desired.prog}
        return Change("replace map", desired.pin, before, after, _missing_prog(desired))
    if not is_home(desired.pin) and not desired.force:
        raise Failure(
            f"{desired.pin} holds another map: {_describe(found)}; it is left alone: unpin "
            "it with state: absent, declare another pin, or set force: true for this one",
            map_id=found.id,
        )
    _require_no_loss(desired, observed, found)
    return Change("replace map", desired.pin, before, _terms(observed.source, mode))


def _require_shape(desired: Desired, shape: Shape, found: MapInfo) -> None:
    wrong = shape.differences(found)
    if wrong:
        raise Failure(
            f"{desired.pin} holds a map of another shape ({_describe(found)}): "
            f"{'; '.join(wrong)}. Nothing was changed: declare the shape it has, or unpin it first "
            "with state: absent (and discard_data: true if its entries may go), or use another pin",
            map_id=found.id,
        )


def _require_no_loss(desired: Desired, observed: Observed, found: MapInfo) -> None:
    if observed.empty or observed.keepers or desired.discard_data:
        return
    raise Failure(
        f"{desired.pin} is all that is seen to keep {_describe(found)}, and it holds entries: no "
        "program, link, map, pin or process of this host refers to it (pins of other mount "
        "namespaces cannot be seen). Set discard_data: true to let the entries go, or pin the map "
        "elsewhere first",
        map_id=found.id,
    )


def _describe(found: MapInfo) -> str:
    return (
        f"map {found.id}, {found.type} {found.name}, key {found.key_size} B, "
        f"value {found.value_size} B, max_entries {found.max_entries}"
    )


def _terms(found: MapInfo, mode: int) -> dict[str, Any]:
    return {
        "id": found.id,
        "name": found.name,
        "type": found.type,
        "key_size": found.key_size,
        "value_size": found.value_size,
        "max_entries": found.max_entries,
        "flags": flag_names(found.flags),
        "mode": f"{mode:04o}",
    }


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Make the map for real, so that the kernel judges its shape, and close it again."""
    if desired.shape is not None and any(change.action == "create map" for change in changes):
        _create(desired, desired.shape).close()


def _create(desired: Desired, shape: Shape) -> Fd:
    name = shape.name or maps.kernel_name(os.path.basename(desired.pin).replace("-", "_"))
    layout = (shape.type, shape.key_size, shape.value_size, shape.max_entries, shape.flags)
    try:
        return maps.create(*layout, name=name)
    except OSError as error:
        advice = shape.advice() if error.errno in (errno.EINVAL, errno.E2BIG) else ""
        attempt = f"create the map for {desired.pin} ({shape.describe()})"
        raise from_os_error(error, attempt, advice) from error


def _open_source(desired: Desired) -> Fd:
    if desired.shape is not None:
        return _create(desired, desired.shape)
    source = _source(desired)
    if source is None:
        raise Failure(f"{desired.prog} is not pinned; load the program first (bpf_prog)")
    return info.open_map(source.id)


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the plan out; the pin changes hands in one rename."""
    for change in changes:
        if change.action == "unpin map":
            pins.remove(desired.pin)
            pins.remove(pins.staging_path(desired.pin))
            prune_home(desired.pin)
            continue
        if change.action != "set the mode of":
            with _open_source(desired) as fd:
                make_parent(desired.pin)
                pins.replace(fd, desired.pin)
        if desired.mode is not None:
            files.set_mode(desired.pin, desired.mode)


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The map that is at the pin, or none."""
    if observed.map is None:
        return {"map": None}
    terms = {**_terms(observed.map, observed.mode), "flags": observed.map.flags}
    return {"map": {"pin": desired.pin, **terms}}
