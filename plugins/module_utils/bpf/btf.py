# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""BTF, the type information that comes with programs and maps, read into plain data.

Layout: include/uapi/linux/btf.h and Documentation/bpf/btf.rst, in native byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .syscall import Buffer, Cmd, Fd, bpf

_MAGIC = 0xEB9F

# BTF_KIND_* by number.
_KINDS = (
    "void",
    "int",
    "ptr",
    "array",
    "struct",
    "union",
    "enum",
    "fwd",
    "typedef",
    "volatile",
    "const",
    "restrict",
    "func",
    "func_proto",
    "var",
    "datasec",
    "float",
    "decl_tag",
    "type_tag",
    "enum64",
)

# Kinds whose third word is a size in bytes; in all others it is a type id, or nothing.
_SIZED = ("int", "struct", "union", "enum", "datasec", "float", "enum64")

# Kinds that only give another type a name or a qualifier.
ALIASES = ("typedef", "volatile", "const", "restrict", "type_tag")

# Bytes that follow the three words of a type: (once, for each of its vlen items).
_EXTRA = {
    "int": (4, 0),
    "array": (12, 0),
    "struct": (0, 12),
    "union": (0, 12),
    "enum": (0, 8),
    "func_proto": (0, 8),
    "var": (4, 0),
    "datasec": (0, 12),
    "decl_tag": (4, 0),
    "enum64": (0, 12),
}

# Encoding bits of an int.
_SIGNED = 1
_BOOL = 4


@dataclass(frozen=True)
class Member:
    """A member of a struct or union, or a variable of a datasec. Offsets and sizes are in bits."""

    name: str
    type_id: int
    bit_offset: int
    bit_size: int = 0  # of a bit field; 0 for a whole member


@dataclass(frozen=True)
class Type:
    """One type. What its kind does not have is zero or empty; ``size`` is in bytes."""

    kind: str
    name: str = ""
    size: int = 0
    type_id: int = 0  # what an alias, a pointer, an array or a variable refers to
    count: int = 0  # elements of an array
    bits: int = 0  # of an int
    bit_offset: int = 0  # of an int within its bytes
    signed: bool = False
    boolean: bool = False
    members: tuple[Member, ...] = ()
    values: tuple[tuple[str, int], ...] = ()  # of an enum


@dataclass(frozen=True)
class Btf:
    """All types of one object, indexed by type id; id 0 is void."""

    types: tuple[Type, ...]

    def resolve(self, type_id: int) -> tuple[Type, tuple[str, ...]]:
        """The type behind typedefs and qualifiers, and the typedefs' names, outermost first."""
        names: list[str] = []
        found = self.types[type_id]
        while found.kind in ALIASES:
            if found.kind == "typedef":
                names.append(found.name)
            found = self.types[found.type_id]
        return found, tuple(names)

    def find(self, kind: str, name: str) -> int:
        """The id of the type of this kind and name. Raises KeyError when there is none."""
        for type_id, found in enumerate(self.types):
            if found.kind == kind and found.name == name:
                return type_id
        raise KeyError(f"{kind} {name}")


def open_btf(btf_id: int) -> Fd:
    """A descriptor of the loaded BTF with this id. ENOENT when it is gone."""
    return Fd(bpf(Cmd.BTF_GET_FD_BY_ID, "III", btf_id, 0, 0, doing=f"open BTF {btf_id}"))


def load(btf_id: int) -> Btf:
    """Read the BTF that the kernel holds under this id (``btf_id`` of a map's or program's info).

    Layout of the question: ``struct bpf_btf_info``.
    """
    with open_btf(btf_id) as fd:
        size = struct.unpack_from("=I", _info(fd, 0, 0), 8)[0]
        content = Buffer(size)
        _info(fd, content.address, size)
    return parse(content.content)


def _info(fd: Fd, address: int, size: int) -> bytes:
    question = Buffer(struct.pack("=QI", address, size).ljust(32, b"\0"))
    layout = (fd.number, question.size, question.address)
    bpf(Cmd.OBJ_GET_INFO_BY_FD, "IIQ", *layout, doing="read BTF")
    return question.content


def parse(raw: bytes) -> Btf:
    """Read raw BTF: a ``.BTF`` section or the kernel's copy. ValueError when it is none."""
    _types_at, _types_end, text_at, text_end = _layout(raw)
    text = raw[text_at:text_end]
    types = [Type("void")]
    for at, kind, count in walk(raw):
        name_at, bits, size_or_type = struct.unpack_from("=III", raw, at)
        extra = raw[at + 12 : at + _size(kind, count)]
        types.append(_type(kind, name_at, bool(bits >> 31), size_or_type, extra, text))
    return Btf(tuple(types))


def walk(raw: bytes) -> Iterator[tuple[int, str, int]]:
    """Where each type lies (a byte's offset), its kind and its number of members, from id 1 on.

    Raises ValueError when it is no BTF.
    """
    at, end, _text_at, _text_end = _layout(raw)
    while at < end:
        if at + 12 > end:
            raise ValueError("truncated BTF: the last type is cut")
        (bits,) = struct.unpack_from("=I", raw, at + 4)
        number, count = bits >> 24 & 0x1F, bits & 0xFFFF
        if number >= len(_KINDS):
            raise ValueError(f"BTF kind {number} is newer than this collection")
        size = _size(_KINDS[number], count)
        if at + size > end:
            raise ValueError("truncated BTF: the last type is cut")
        yield at, _KINDS[number], count
        at += size


def _layout(raw: bytes) -> tuple[int, int, int, int]:
    """Where types and names begin and end."""
    try:
        magic, _version, _flags, header, type_at, type_size, text_at, text_size = (
            struct.unpack_from("=HBB5I", raw, 0)
        )
    except struct.error as error:
        raise ValueError(f"truncated BTF: {error}") from error
    if magic != _MAGIC:
        raise ValueError(f"no BTF: it starts with {raw[:2].hex()}")
    if len(raw) < header + max(type_at + type_size, text_at + text_size):
        raise ValueError("truncated BTF: it ends before its types and names do")
    types, text = header + type_at, header + text_at
    return types, types + type_size, text, text + text_size


def _size(kind: str, count: int) -> int:
    once, each = _EXTRA.get(kind, (0, 0))
    return 12 + once + each * count


def _type(
    kind: str, name_at: int, flag: bool, size_or_type: int, extra: bytes, text: bytes
) -> Type:
    name = _name(text, name_at)
    size, target = (size_or_type, 0) if kind in _SIZED else (0, size_or_type)
    if kind == "int":
        word = struct.unpack("=I", extra)[0]
        encoding = word >> 24
        return Type(
            kind,
            name,
            size,
            bits=word & 0xFF,
            bit_offset=word >> 16 & 0xFF,
            signed=bool(encoding & _SIGNED),
            boolean=bool(encoding & _BOOL),
        )
    if kind == "array":
        element, _index, count = struct.unpack("=III", extra)
        return Type(kind, name, type_id=element, count=count)
    if kind in ("struct", "union"):
        return Type(kind, name, size, members=_members(extra, flag, text))
    if kind == "datasec":
        variables = struct.iter_unpack("=III", extra)
        members = tuple(Member("", type_id, 8 * offset) for type_id, offset, _size in variables)
        return Type(kind, name, size, members=members)
    if kind in ("enum", "enum64"):
        return Type(kind, name, size, signed=flag, values=_enumerators(kind, extra, flag, text))
    return Type(kind, name, size, target)


def _members(extra: bytes, has_bit_fields: bool, text: bytes) -> tuple[Member, ...]:
    return tuple(
        Member(_name(text, name_at), type_id, word & 0xFFFFFF, word >> 24)
        if has_bit_fields
        else Member(_name(text, name_at), type_id, word)
        for name_at, type_id, word in struct.iter_unpack("=III", extra)
    )


def _enumerators(kind: str, extra: bytes, signed: bool, text: bytes) -> tuple[tuple[str, int], ...]:
    if kind == "enum":
        layout = "=Ii" if signed else "=II"
        return tuple((_name(text, at), value) for at, value in struct.iter_unpack(layout, extra))
    values = ((at, high << 32 | low) for at, low, high in struct.iter_unpack("=III", extra))
    return tuple(
        (_name(text, at), value - (1 << 64) if signed and value >> 63 else value)
        for at, value in values
    )


def _name(text: bytes, at: int) -> str:
    return text[at : text.index(b"\0", at)].decode("ascii", "replace")


def variables(btf: Btf, section: str) -> Mapping[str, Member]:
    """The global variables of a section such as ``.rodata``, by name. Raises KeyError if none."""
    found = btf.types[btf.find("datasec", section)]
    return {btf.types[member.type_id].name: member for member in found.members}
