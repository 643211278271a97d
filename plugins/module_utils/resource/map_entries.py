# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The entries of one pinned map.

Entries that exist already with the declared value are left alone. Programs go on writing to the
map meanwhile: what they add between two looks of one run is no concern of this run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bpf import info, map_contents, maps, pins
from ..bpf.info import MapInfo
from ..bpf.map_contents import ARRAYS, INDEXED
from ..bpf.syscall import Fd
from ..bpf.values import BadValue
from .engine import Change
from .errors import Failure
from .map_shapes import Shapes, shapes_of
from .map_writes import Batch, Write, require_writable, write_all
from .paths import check_parent, pin_path

_OTHER_TOOLS = {
    "sockmap": "sockets get into it by a program (sockmap_attach attaches to it)",
    "sockhash": "sockets get into it by a program (sockmap_attach attaches to it)",
    "prog_array": "its values are programs",
    "array_of_maps": "its values are maps",
    "hash_of_maps": "its values are maps",
}


@dataclass
class Memory:
    """What one run remembers from its first look at the map to its last."""

    before: int | None = None
    purged: bool = False


@dataclass(frozen=True)
class Desired:
    """Declared entries of the map pinned at ``map``: (key, value) as the operator wrote them."""

    map: str
    state: str
    entries: tuple[tuple[Any, Any], ...]
    key_format: str = ""
    value_format: str = ""
    purge: bool = False
    memory: Memory = field(default_factory=Memory, compare=False)


@dataclass(frozen=True)
class Declared:
    """A declared entry in both spellings. ``key`` is the bytes that identify it."""

    key: bytes
    value: bytes
    written_key: Any
    written_value: Any


@dataclass(frozen=True)
class Observed:
    """The map, what was declared of it, and what it holds. No map: it is not pinned."""

    map: MapInfo | None
    shapes: Shapes | None = None
    declared: tuple[Declared, ...] = ()
    found: Mapping[bytes, bytes] = field(default_factory=dict)  # of the declared keys
    others: Mapping[bytes, bytes] = field(default_factory=dict)  # undeclared; read for purge only
    count: int = 0


def desired(params: Mapping[str, Any]) -> Desired:
    """Check the module's parameters. Raises Failure."""
    state, purge = params["state"], bool(params.get("purge"))
    entries = params.get("entries") or []
    if state == "absent" and purge:
        raise Failure("purge removes what is not declared; with state: absent it means nothing")
    if state == "present":
        for index, entry in enumerate(entries):
            if entry.get("value") is None:
                raise Failure(f"entries[{index}]: the key {entry['key']!r} has no value")
    return Desired(
        map=pin_path(params["map"]),
        state=state,
        entries=tuple((entry["key"], entry.get("value")) for entry in entries),
        key_format=_words(params.get("key_format")),
        value_format=_words(params.get("value_format")),
        purge=purge,
    )


def _words(declared: Any) -> str:
    return " ".join(map(str, declared)) if isinstance(declared, list) else str(declared or "")


def observe(desired: Desired) -> Observed:
    """Encode what was declared by the map's types, and read what the map holds of it."""
    if not os.path.lexists(desired.map):
        if desired.state == "present":
            check_parent(desired.map)
        return Observed(None)
    with _open(desired.map) as fd:
        map_info = info.map_(fd)
        _require_data(desired.map, map_info)
        shapes = shapes_of(map_info, desired.key_format, desired.value_format)
        declared = _encode(desired, map_info, shapes)
        observed = _read(desired, fd, map_info, shapes, declared)
    if desired.memory.before is None:
        desired.memory.before = observed.count
    return observed


def _open(path: str) -> Fd:
    if os.path.isdir(path):
        raise Failure(f"map: {path} is a directory, not a pinned map")
    check_parent(path)
    fd = pins.get(path)
    kind = pins.kind(fd)
    if kind != "map":
        fd.close()
        raise Failure(f"map: {path} holds a {kind}, not a map")
    return fd


def _require_data(path: str, map_info: MapInfo) -> None:
    if map_contents.holds_data(map_info):
        return
    why = _OTHER_TOOLS.get(map_info.type, "its values are no data that could be declared")
    raise Failure(
        f"{path} is a map of type {map_info.type}: {why}; entries can be declared of "
        "hash, array and lpm_trie maps, their LRU and per-CPU kinds, and devmaps by ifindex"
    )


def _encode(desired: Desired, map_info: MapInfo, shapes: Shapes) -> tuple[Declared, ...]:
    found: dict[bytes, Declared] = {}
    for index, (key, value) in enumerate(desired.entries):
        where = f"entries[{index}]"
        try:
            raw = shapes.key.encode(key, f"{where}.key")
            content = b""
            if desired.state == "present":
                content = shapes.value.encode(value, f"{where}.value")
        except BadValue as error:
            raise Failure(f"{error} (map {desired.map}); nothing was changed") from error
        if map_info.type in INDEXED:
            _require_index(raw, map_info, f"{where}.key")
        if raw in found:
            first = next(at for at, known in enumerate(found) if known == raw)
            raise Failure(f"{where}: the key {key!r} is declared in entries[{first}] already")
        found[raw] = Declared(raw, content, key, value)
    return tuple(found.values())


def _require_index(key: bytes, map_info: MapInfo, where: str) -> None:
    index = int.from_bytes(key, sys.byteorder)
    if index >= map_info.max_entries:
        raise Failure(
            f"{where}: index {index} is beyond the map's {map_info.max_entries} entries "
            f"(0 to {map_info.max_entries - 1})"
        )


def _read(
    desired: Desired, fd: Fd, map_info: MapInfo, shapes: Shapes, declared: tuple[Declared, ...]
) -> Observed:
    wanted = {entry.key for entry in declared}
    found: dict[bytes, bytes] = {}
    others: dict[bytes, bytes] = {}
    count = 0
    for raw, value in map_contents.items(fd, map_info):
        key = shapes.identity(raw)
        is_set = _is_set(map_info, value)
        count += is_set
        if key in wanted:
            found[key] = value
        elif desired.purge and is_set:
            others[raw] = value
    return Observed(map_info, shapes, declared, found, others, count)


def _is_set(map_info: MapInfo, value: bytes | None) -> bool:
    """Whether there is an entry. An array has them all: there, one that is not zero counts."""
    if value is None:
        return False
    return any(value) if map_info.type in ARRAYS else True


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """One change for all entries that differ, in the operator's spelling."""
    if observed.map is None or observed.shapes is None:
        return _plan_unpinned(desired)
    writes = _writes(desired, observed, observed.map)
    if not writes:
        return []
    batch = Batch(observed.map, tuple(write for write, _entry in writes), observed.count)
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for write, entry in writes:
        value_like = entry.written_value if entry else None
        name = _name(observed.shapes, write.key, entry)
        if write.before is not None:
            before[name] = observed.shapes.value.decode(write.before, value_like)
        if write.after is not None:
            after[name] = observed.shapes.value.decode(write.after, value_like)
    return [Change(_action(writes), desired.map, before, after, detail=batch)]


def _plan_unpinned(desired: Desired) -> list[Change]:
    if desired.state == "absent":
        return []
    after = {_text(key): value for key, value in desired.entries}
    warning = f"{desired.map} is not pinned yet; a real run needs it"
    return [
        Change(f"add {len(after)} {_entries(len(after))} of", desired.map, None, after, warning)
    ]


def _writes(
    desired: Desired, observed: Observed, map_info: MapInfo
) -> list[tuple[Write, Declared | None]]:
    """What to write, each with the declaration behind it (None: purged)."""
    zero = bytes(maps.value_bytes(map_info)) if map_info.type in ARRAYS else None
    writes: list[tuple[Write, Declared | None]] = []
    for entry in observed.declared:
        now = observed.found.get(entry.key)
        if desired.state == "present":
            if now != entry.value:
                writes.append((Write(entry.key, now, entry.value), entry))
        elif _is_set(map_info, now):
            writes.append((Write(entry.key, now, zero), entry))
    if desired.purge and not desired.memory.purged:
        writes += [(Write(key, now, zero), None) for key, now in observed.others.items()]
    return writes


def _action(writes: Sequence[tuple[Write, Declared | None]]) -> str:
    """Such as ``add 2, change 1, remove 3 entries of``."""
    added = sum(write.before is None for write, _entry in writes)
    removed = sum(write.after is None for write, _entry in writes)
    parts = {"add": added, "change": len(writes) - added - removed, "remove": removed}
    told = ", ".join(f"{verb} {number}" for verb, number in parts.items() if number)
    return f"{told} {_entries(len(writes))} of"


def _entries(number: int) -> str:
    return "entry" if number == 1 else "entries"


def _name(shapes: Shapes, key: bytes, entry: Declared | None) -> str:
    """A key as it was declared; a prefix as ADDRESS/BITS, like those that nobody declared."""
    like = entry.written_key if entry else None
    if isinstance(like, Mapping):
        name = shapes.key.decode(key, None)
        if isinstance(name, str):
            return name
    return _text(shapes.key.decode(key, like))


def _text(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key)


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Prove that the map may be written and has room."""
    for change in changes:
        if change.detail is not None:
            with _open(desired.map) as fd:
                require_writable(fd, change.detail, desired.map)


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Write all entries, or none: what was written is undone when a write fails."""
    for change in changes:
        if change.detail is None:
            raise Failure(
                f"map: nothing is pinned at {desired.map}; "
                "load its program (bpf_prog) or create it (bpf_map_pin) first"
            )
        with _open(desired.map) as fd:
            if info.map_(fd).id != change.detail.map.id:
                raise Failure(f"{desired.map} was given another map meanwhile; run again")
            require_writable(fd, change.detail, desired.map)
            write_all(fd, change.detail, desired.map)
    desired.memory.purged = True


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The map, and how many entries it had and has (in check mode: would have)."""
    if observed.map is None:
        entries = len(desired.entries) if desired.state == "present" else 0
        return {"map": None, "before": 0, "after": entries}
    after = observed.count
    for write, _entry in _writes(desired, observed, observed.map):
        after += _is_set(observed.map, write.after) - _is_set(observed.map, write.before)
    before = observed.count if desired.memory.before is None else desired.memory.before
    return {
        "map": {
            "id": observed.map.id,
            "name": observed.map.name,
            "pin": desired.map,
            "type": observed.map.type,
            "max_entries": observed.map.max_entries,
        },
        "before": before,
        "after": after,
    }
