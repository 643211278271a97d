# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How the keys and values of one map are written: as declared, by its BTF, or in hex."""

from __future__ import annotations

from dataclasses import dataclass

from ..bpf import btf, btf_values, map_contents, maps, value_formats
from ..bpf.info import MapInfo
from ..bpf.records import PerCpu, PrefixKey
from ..bpf.values import BadValue, Bytes, Number, Shape
from .errors import Failure


@dataclass(frozen=True)
class Shapes:
    """The shapes of a map's keys and values (those of all CPUs in a per-CPU map)."""

    key: Shape
    value: Shape

    def identity(self, key: bytes) -> bytes:
        """What distinguishes a key for the kernel: in a trie, without bits beyond the prefix."""
        return self.key.canonical(key) if isinstance(self.key, PrefixKey) else key


def shapes_of(map_info: MapInfo, key_format: str, value_format: str) -> Shapes:
    """The shapes for a map's entries. Raises Failure when a format does not fit the map."""
    types = btf.load(map_info.btf_id) if map_info.btf_id else None
    key = _shape(types, map_info.btf_key_type_id, key_format, "key_format")
    value = _shape(types, map_info.btf_value_type_id, value_format, "value_format")
    if key is None:
        index = map_info.type in (*map_contents.ARRAYS, *map_contents.TARGETS)
        key = Number(4, label="an index") if index else Bytes(map_info.key_size)
    if value is None:
        value = Bytes(map_info.value_size)
    for what, shape, size in (
        ("key", key, map_info.key_size),
        ("value", value, map_info.value_size),
    ):
        if shape.size != size:
            raise Failure(
                f"{what}_format names {shape.size} bytes, but a {what} of map {map_info.id} "
                f"({map_info.name}) has {size}; pad[N] stands for bytes that are not used"
            )
    if map_info.type == map_contents.TRIE:
        key = btf_values.prefix_key(key)
    if map_info.type in maps.PER_CPU_TYPES:
        value = PerCpu(value, maps.possible_cpus())
    return Shapes(key, value)


def _shape(types: btf.Btf | None, type_id: int, words: str, where: str) -> Shape | None:
    try:
        if words:
            return value_formats.parse(words, where)
        if types is not None and type_id:
            return btf_values.shape_of(types, type_id)
    except BadValue as error:
        raise Failure(str(error)) from error
    return None
