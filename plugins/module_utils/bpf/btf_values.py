# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How a BTF type is written down: from a type id to a shape (see ``values`` and ``records``).

Byte order comes from the type: ``__be16``, ``__be32``, ``__be64`` and their ``__le`` counterparts
of include/uapi/linux/types.h; ``struct in_addr``, ``struct in6_addr``, ``__be32[4]`` and
``__u8[16]`` hold addresses, ``__u8[6]`` a MAC.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

from .btf import Btf, Member, Type
from .records import Field, PrefixKey, Record, Row, Sequence
from .values import Address, BadValue, Boolean, Bytes, Enumeration, Number, Shape, Text

_ORDERS = {
    "__be16": "big",
    "__be32": "big",
    "__be64": "big",
    "__le16": "little",
    "__le32": "little",
    "__le64": "little",
}
_ADDRESS_STRUCTS = {"in_addr": 4, "in6_addr": 16}
_POINTER_BYTES = 8  # in a BPF program, on every architecture


def shape_of(btf: Btf, type_id: int) -> Shape:
    """The shape of a type. Raises BadValue for one that no memory holds, such as a function."""
    found, names = btf.resolve(type_id)
    label = names[0] if names else found.name
    if found.kind == "int":
        return _int(found, names, label)
    if found.kind == "ptr":
        return Number(_POINTER_BYTES, label="a pointer")
    if found.kind == "array":
        return _array(btf, found)
    if found.kind in ("struct", "union"):
        return _struct(btf, found, label)
    if found.kind == "datasec":
        return Record(found.name, found.size, tuple(_variables(btf, found)))
    if found.kind in ("enum", "enum64"):
        number = Number(found.size, found.signed, label=f"enum {label}".rstrip())
        return Enumeration(number, dict(found.values))
    if found.kind == "float":
        return Bytes(found.size)
    raise BadValue(f"the BTF type {found.kind} {label} is not one of data")


def _int(found: Type, names: tuple[str, ...], label: str) -> Number | Boolean:
    if found.boolean:
        return Boolean(found.size)
    order = next((_ORDERS[name] for name in names if name in _ORDERS), sys.byteorder)
    return Number(found.size, found.signed, order, label, address="__be32" in names)


def _array(btf: Btf, found: Type) -> Shape:
    element, names = btf.resolve(found.type_id)
    if element.kind == "int" and element.size == 1 and not element.boolean:
        if element.name == "char" and not names:
            return Text(found.count)
        if not element.signed:
            return Bytes(found.count, mac=True)
    sequence = Sequence(shape_of(btf, found.type_id), found.count)
    if "__be32" in names and found.count == 4:
        return Address(16, sequence)
    return sequence


def _struct(btf: Btf, found: Type, label: str) -> Shape:
    record = Record(f"{found.kind} {label}".rstrip(), found.size, tuple(_fields(btf, found, 0)))
    if _ADDRESS_STRUCTS.get(found.name) == found.size:
        return Address(found.size, record)
    return record


def _fields(btf: Btf, found: Type, base: int) -> Iterator[Field]:
    """The members, those of anonymous structs and unions in place. ``base`` is in bits."""
    for member in found.members:
        inner, _names = btf.resolve(member.type_id)
        if member.name:
            yield _field(btf, member, inner, base)
        elif inner.kind in ("struct", "union"):
            yield from _fields(btf, inner, base + member.bit_offset)


def _field(btf: Btf, member: Member, inner: Type, base: int) -> Field:
    shape = shape_of(btf, member.type_id)
    offset = base + member.bit_offset
    bits = member.bit_size
    if inner.kind == "int" and not bits and inner.bits != 8 * inner.size:
        # Before BTF had kind_flag, the width of a bit field was in its int.
        bits, offset = inner.bits, offset + inner.bit_offset
    if not bits:
        return Field(member.name, shape, offset, 8 * shape.size)
    if isinstance(shape, Number):
        label = f"{shape.label} of {bits} bits"
        return Field(
            member.name, replace(shape, bits=bits, label=label), offset, bits, shape.signed
        )
    return Field(member.name, shape, offset, bits, inner.signed)


def _variables(btf: Btf, section: Type) -> Iterator[Field]:
    """The global variables of a section such as ``.bss``."""
    for member in section.members:
        variable = btf.types[member.type_id]
        shape = shape_of(btf, variable.type_id)
        yield Field(variable.name, shape, member.bit_offset, 8 * shape.size)


def prefix_key(key: Shape) -> PrefixKey:
    """The key of an LPM trie, which may be written ``value/length`` where one value is counted."""
    return PrefixKey(key, _prefix_data(key))


def _prefix_data(key: Shape) -> Shape | None:
    parts: tuple[Shape, ...] = ()
    if isinstance(key, Record):
        if [field.bit_offset for field in key.fields] == [0, 32]:
            parts = tuple(field.shape for field in key.fields)
    elif isinstance(key, Row) and not any(key.gaps):
        parts = key.fields
    if len(parts) != 2 or parts[0].size != 4:
        return None
    data = parts[1]
    if isinstance(data, Bytes) and data.size in (4, 16):
        return Address(data.size, data)
    if isinstance(data, Number) and data.address:
        return Address(4)
    return data if isinstance(data, (Address, Number, Bytes)) else None
