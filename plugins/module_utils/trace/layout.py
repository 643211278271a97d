# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Where members lie in this kernel's structures, so that a source needs no kernel header for them.

Including linux/skbuff.h alone makes a compilation ten times as long, and headers can be another
build's; the running kernel's BTF cannot.
"""

from __future__ import annotations

import struct

from ..bpf import btf
from ..resource.errors import Failure, from_os_error

_VMLINUX = "/sys/kernel/btf/vmlinux"
_STRUCTURES = ("struct", "union")


class _Types:
    """The types of the kernel by id, none of them read before it is asked for."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        header, text_at = struct.unpack_from("=I", raw, 4)[0], struct.unpack_from("=I", raw, 16)[0]
        self.text = header + text_at
        self.places = [(0, "void", 0), *btf.walk(raw)]

    def name(self, at: int) -> str:
        start = self.text + at
        return self.raw[start : self.raw.index(b"\0", start)].decode("ascii", "replace")

    def named(self, wanted: set[str]) -> dict[str, int]:
        """The ids of structures by their names; the first of each name."""
        found: dict[str, int] = {}
        texts = {}
        for number, (at, kind, count) in enumerate(self.places):
            if kind == "struct" and count:
                name_at = struct.unpack_from("=I", self.raw, at)[0]
                if name_at not in texts:
                    texts[name_at] = self.name(name_at)
                if texts[name_at] in wanted:
                    found.setdefault(texts[name_at], number)
        return found

    def offset(self, number: int, member: str) -> int | None:
        """The offset in bits of a member, also of one in an anonymous structure."""
        at, _kind, count = self.places[number]
        flags = struct.unpack_from("=I", self.raw, at + 4)[0]
        for index in range(count):
            name_at, type_id, bits = struct.unpack_from("=III", self.raw, at + 12 + 12 * index)
            place = bits & 0xFFFFFF if flags >> 31 else bits
            if not name_at:
                if self.places[type_id][1] in _STRUCTURES:
                    inner = self.offset(type_id, member)
                    if inner is not None:
                        return int(place + inner)
            elif self.name(name_at) == member:
                if flags >> 31 and bits >> 24:
                    raise Failure(f"offsets: {member} is a bit field")
                return int(place)
        return None


def offsets(members: tuple[str, ...]) -> dict[str, int]:
    """The offset in bytes of each ``structure.member``. Raises Failure for what there is not."""
    if not members:
        return {}
    for member in members:
        if member.count(".") != 1 or not all(part.isidentifier() for part in member.split(".")):
            raise Failure(f"offsets: {member!r} is not STRUCTURE.MEMBER")
    try:
        with open(_VMLINUX, "rb") as file:
            types = _Types(file.read())
    except OSError as error:
        advice = "offsets needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF)"
        raise from_os_error(error, f"read {_VMLINUX}", advice) from error
    structures = types.named({member.split(".")[0] for member in members})
    found = {}
    for member in members:
        structure, name = member.split(".")
        place = types.offset(structures[structure], name) if structure in structures else None
        if place is None:
            raise Failure(f"offsets: this kernel has no {member}")
        found[member] = place // 8
    return found


def definitions(members: tuple[str, ...]) -> list[str]:
    """Compiler flags that define OFFSET_structure_member for each."""
    return [
        f"-DOFFSET_{member.replace('.', '_')}={place}" for member, place in offsets(members).items()
    ]
