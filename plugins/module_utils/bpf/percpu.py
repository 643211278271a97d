# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Counters that a program keeps for each CPU, added up."""

from __future__ import annotations

from collections import Counter

from . import btf, btf_values, info, maps, pins
from .records import Record
from .syscall import Fd


def totals(fd: Fd) -> dict[str, int]:
    """Sums over all CPUs of the numbers in entry 0 of a per-CPU array of structs, by member name.

    The map's BTF says what the members are. Raises OSError, ValueError for anything else than such
    an array.
    """
    kind = pins.kind(fd)
    if kind != "map":
        raise ValueError(f"a {kind} is no map")
    about = info.map_(fd)
    if about.type != "percpu_array" or not about.btf_id or not about.btf_value_type_id:
        raise ValueError(f"map {about.name} is no percpu_array with BTF")
    shape = btf_values.shape_of(btf.load(about.btf_id), about.btf_value_type_id)
    if not isinstance(shape, Record):
        raise ValueError(f"the values of map {about.name} are no structs")
    content = maps.lookup(fd, bytes(4), maps.value_bytes(about)) or b""
    stride = (about.value_size + 7) // 8 * 8
    sums: Counter[str] = Counter()
    for start in range(0, len(content), stride):
        value = shape.decode(content[start : start + shape.size])
        sums.update({name: number for name, number in value.items() if isinstance(number, int)})
    return dict(sums)
