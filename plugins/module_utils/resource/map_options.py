# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What an operator may declare of a pinned map: options in, checked data out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..bpf import maps, names
from ..bpf.info import MapInfo
from .errors import Failure
from .paths import pin_path

# BPF_F_* of MAP_CREATE, include/uapi/linux/bpf.h, as far as a map without program can have them.
FLAGS = {
    "no_prealloc": 1 << 0,
    "no_common_lru": 1 << 1,
    "stack_build_id": 1 << 5,
    "zero_seed": 1 << 6,
    "rdonly_prog": 1 << 7,
    "wronly_prog": 1 << 8,
    "clone": 1 << 9,
    "mmapable": 1 << 10,
    "preserve_elems": 1 << 11,
    "inner_map": 1 << 12,
}
_DESCRIPTOR_FLAGS = 1 << 3 | 1 << 4  # RDONLY and WRONLY: the map does not keep them
# The kernel adds BPF_F_RDONLY_PROG to these by itself (dev_map_init_map, kernel/bpf/devmap.c).
_READ_ONLY_TYPES = ("devmap", "devmap_hash")

_NO_SIZES = ("ringbuf", "user_ringbuf")  # neither keys nor values
_NO_KEY = ("queue", "stack", "bloom_filter", *_NO_SIZES)
_NEEDS_PROGRAM = {
    "array_of_maps": "an inner map",
    "hash_of_maps": "an inner map",
    "struct_ops": "the kernel's BTF",
    "sk_storage": "BTF",
    "inode_storage": "BTF",
    "task_storage": "BTF",
    "cgrp_storage": "BTF",
    "cgroup_storage": "a program",
    "percpu_cgroup_storage": "a program",
}
_NAME = re.compile(r"[A-Za-z0-9_.]+")


@dataclass(frozen=True)
class Shape:
    """A map to be made. Sizes in bytes; ``name`` as the kernel keeps it, "" when not declared."""

    type: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    name: str

    def terms(self) -> dict[str, Any]:
        """The shape as the options say it."""
        return {
            **({"name": self.name} if self.name else {}),
            "type": self.type,
            "key_size": self.key_size,
            "value_size": self.value_size,
            "max_entries": self.max_entries,
            "flags": flag_names(self.flags),
        }

    def describe(self) -> str:
        """The shape in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.terms().items())

    def differences(self, found: MapInfo) -> list[str]:
        """Where an existing map has another shape, such as ``key_size is 4, not 8``."""
        ignored = _DESCRIPTOR_FLAGS
        ignored |= FLAGS["rdonly_prog"] if found.type in _READ_ONLY_TYPES else 0
        pairs: list[tuple[str, Any, Any]] = [
            ("type", found.type, self.type),
            ("key_size", found.key_size, self.key_size),
            ("value_size", found.value_size, self.value_size),
            ("max_entries", found.max_entries, _rounded(self)),
            ("flags", flag_names(found.flags & ~ignored), flag_names(self.flags & ~ignored)),
            ("name", found.name, self.name or found.name),
        ]
        return [f"{label} is {has}, not {wants}" for label, has, wants in pairs if has != wants]

    def advice(self) -> str:
        """What to do when the kernel refuses the shape."""
        if self.type == "lpm_trie" and not self.flags & FLAGS["no_prealloc"]:
            return "an lpm_trie needs flags: [no_prealloc]"
        if self.type in ("array", "percpu_array") and self.key_size != 4:
            return f"the key of an {self.type} is an index: key_size is 4"
        if self.type in _NO_SIZES:
            return "its max_entries is a size in bytes: a power of two, at least a page"
        return (
            "no map of this type has that shape or those flags; see "
            f"Documentation/bpf of the kernel on BPF_MAP_TYPE_{self.type.upper()}"
        )


def _rounded(shape: Shape) -> int:
    """An LRU with a list for each CPU has a multiple of the CPUs (htab_map_alloc, hashtab.c)."""
    if shape.type in ("lru_hash", "lru_percpu_hash") and shape.flags & FLAGS["no_common_lru"]:
        cpus = maps.possible_cpus()
        return (shape.max_entries + cpus - 1) // cpus * cpus
    return shape.max_entries


@dataclass(frozen=True)
class Desired:
    """A pin, and the map that belongs there: a new ``shape``, or ``map_id``, or prog and map."""

    pin: str
    state: str
    shape: Shape | None = None
    map_id: int = 0
    prog: str = ""
    map: str = ""
    mode: int | None = None
    discard_data: bool = False
    force: bool = False


def desired(params: Mapping[str, Any]) -> Desired:
    """Check the module's parameters. Raises Failure."""
    state = params["state"]
    common = {
        "pin": pin_path(params["pin"]),
        "state": state,
        "mode": _mode(params.get("mode")),
        "discard_data": bool(params.get("discard_data")),
        "force": bool(params.get("force")),
    }
    if state == "absent":
        return Desired(**common)
    ways = [way for way in ("type", "map_id", "prog") if params.get(way)]
    if len(ways) != 1:
        given = " and ".join(ways) or "none"
        raise Failure(
            "say in one way which map belongs at the pin: type (with key_size, value_size, "
            f"max_entries) makes one, map_id or prog with map takes one that exists; given: {given}"
        )
    if ways == ["map_id"]:
        return Desired(**common, map_id=params["map_id"])
    if ways == ["prog"]:
        if not params.get("map"):
            raise Failure("prog needs map: the name of the map in that program")
        return Desired(**common, prog=pin_path(params["prog"]), map=params["map"])
    return Desired(**common, shape=_shape(params))


def _shape(params: Mapping[str, Any]) -> Shape:
    kind = params["type"]
    if kind not in names.MAP_TYPES[1:]:
        raise Failure(f"type: {kind!r} is no map type; they are {', '.join(names.MAP_TYPES[1:])}")
    if kind in _NEEDS_PROGRAM:
        raise Failure(
            f"type: a map of type {kind} needs {_NEEDS_PROGRAM[kind]}: "
            "declare it in a program and load that with bpf_prog"
        )
    wanted = ["max_entries"]
    wanted += [] if kind in _NO_SIZES else ["value_size"]
    wanted += [] if kind in _NO_KEY else ["key_size"]
    missing = [option for option in sorted(wanted) if not params.get(option)]
    if missing:
        raise Failure(f"a map of type {kind} needs {', '.join(missing)}")
    sizes = {
        option: params.get(option) or 0 for option in ("key_size", "value_size", "max_entries")
    }
    for option, size in sizes.items():
        if not 0 <= size < 1 << 32:
            raise Failure(f"{option}: {size} is out of range (0 to 4294967295)")
    name = params.get("name") or ""
    if name and not _NAME.fullmatch(name):
        raise Failure(f"name: {name!r} has other characters than letters, digits, _ and .")
    return Shape(kind, flags=_flags(params.get("flags")), name=maps.kernel_name(name), **sizes)


def _flags(declared: Any) -> int:
    """Flags by name (``no_prealloc``, ``BPF_F_NO_PREALLOC``) or number, one or several."""
    words = declared if isinstance(declared, list) else [declared]
    return _combine([part for word in words if word for part in re.split(r"[\s,|]+", str(word))])


def _combine(words: list[str]) -> int:
    flags = 0
    for word in words:
        name = word.lower().replace("bpf_f_", "", 1)
        if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", name):
            flags |= int(name, 0)
        elif name in FLAGS:
            flags |= FLAGS[name]
        else:
            raise Failure(f"flags: {word!r} is no number and none of {', '.join(FLAGS)}")
    if flags >> 32:
        raise Failure(f"flags: {flags:#x} has more than 32 bits")
    return flags


def flag_names(flags: int) -> list[str]:
    """The flags as names, in hex where there is none."""
    found = [name for name, bit in FLAGS.items() if flags & bit]
    rest = flags & ~sum(FLAGS.values())
    return [*found, *([hex(rest)] if rest else [])]


def _mode(declared: Any) -> int | None:
    """Permission bits from a number or its octal spelling."""
    if declared is None:
        return None
    text = str(declared).strip()
    if isinstance(declared, str) and re.fullmatch(r"(0o?)?[0-7]{1,3}", text):
        return int(text.replace("o", ""), 8)
    if isinstance(declared, int) and not isinstance(declared, bool) and 0 <= declared <= 0o777:
        return declared
    raise Failure(
        f"mode: {declared!r} is none; write permission bits in octal and quoted, as '0640'"
    )
