# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Provenance: what a program was loaded from, held in the kernel with the program itself.

A frozen array map whose BTF is a DATASEC of ``bpf_metadata_<key>`` strings is bound to the program
(BPF_PROG_BIND_MAP, Linux 5.10). Stock ``bpftool prog show`` prints it as metadata. It lives and
dies with the program, needs no file beside it, and nobody can change it afterwards.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

from . import btf, info, maps
from .info import MapInfo, ProgramInfo
from .syscall import Buffer, Cmd, Fd, bpf

OWNER = "ebpf.fleet"

# bpftool looks for ".rodata" in the name and at the first such map that has BTF.
MAP_NAME = "fleet.rodata"
_SECTION = ".rodata"
_PREFIX = "bpf_metadata_"
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{,99}")  # BTF's names end at 127 characters before 6.1

_F_RDONLY_PROG = 1 << 7  # BPF_F_RDONLY_PROG, include/uapi/linux/bpf.h

# include/uapi/linux/btf.h
_BTF_HEADER = "=HBBIIIII"
_BTF_MAGIC = 0xEB9F
_KIND_INT, _KIND_ARRAY, _KIND_VAR, _KIND_DATASEC = 1, 3, 14, 15
_INT_SIGNED, _INT_CHAR = 1, 2


def is_key(name: str) -> bool:
    """Whether BTF takes the name: a C identifier, of at most 100 characters here."""
    return _KEY.fullmatch(name) is not None


def write(program: Fd, values: Mapping[str, str]) -> None:
    """Bind provenance to a program that has none yet. Keys are C identifiers, values UTF-8."""
    encoded = {key: value.encode() + b"\0" for key, value in values.items()}
    content = b"".join(encoded.values())
    description = _describe({key: len(value) for key, value in encoded.items()})
    blob = Buffer(description)
    with Fd(
        bpf(Cmd.BTF_LOAD, "QQII", blob.address, 0, blob.size, 0, doing="load provenance BTF")
    ) as types:
        section_id = 2 + 2 * len(encoded) + 1
        with maps.create(
            "array", 4, len(content), 1, _F_RDONLY_PROG, MAP_NAME, types.number, 0, section_id
        ) as fd:
            maps.update(fd, bytes(4), content)
            maps.freeze(fd)
            bpf(Cmd.PROG_BIND_MAP, "III", program.number, fd.number, 0, doing="bind the provenance")


def read(program: ProgramInfo) -> dict[str, str]:
    """The provenance of a program, empty when it has none."""
    for map_id in program.map_ids:
        try:
            with info.open_map(map_id) as fd:
                about = info.map_(fd)
                if about.name == MAP_NAME and about.type == "array" and about.btf_id:
                    return _read_map(fd, about)
        except (FileNotFoundError, KeyError, ValueError):
            continue  # gone meanwhile, or a map of this name that is something else
    return {}


def is_ours(program: ProgramInfo) -> bool:
    """Whether the program was loaded by this collection."""
    return read(program).get("owner") == OWNER


def _read_map(fd: Fd, about: MapInfo) -> dict[str, str]:
    content = maps.lookup(fd, bytes(4), about.value_size) or b""
    found = {}
    for name, member in btf.variables(btf.load(about.btf_id), _SECTION).items():
        value = content[member.bit_offset // 8 :].split(b"\0", 1)[0]
        found[name[len(_PREFIX) :]] = value.decode("utf-8", "replace")
    return found


def _describe(sizes: Mapping[str, int]) -> bytes:
    """BTF: char, int, then an array and a variable for each key, and the section of them all."""
    strings = bytearray(b"\0")

    def name(text: str) -> int:
        strings.extend(text.encode() + b"\0")
        return len(strings) - len(text) - 1

    types = _type(name("char"), _KIND_INT, 0, 1) + struct.pack("=I", _INT_CHAR << 24 | 8)
    types += _type(name("int"), _KIND_INT, 0, 4) + struct.pack("=I", _INT_SIGNED << 24 | 32)
    members = b""
    offset = 0
    for index, (key, size) in enumerate(sizes.items()):
        array_id = 3 + 2 * index
        types += _type(0, _KIND_ARRAY, 0, 0) + struct.pack("=III", 1, 2, size)
        types += _type(name(_PREFIX + key), _KIND_VAR, 0, array_id) + struct.pack("=I", 1)
        members += struct.pack("=III", array_id + 1, offset, size)
        offset += size
    types += _type(name(_SECTION), _KIND_DATASEC, len(sizes), offset) + members
    size = struct.calcsize(_BTF_HEADER)
    header = (_BTF_MAGIC, 1, 0, size, 0, len(types), len(types), len(strings))
    return struct.pack(_BTF_HEADER, *header) + types + bytes(strings)


def _type(name: int, kind: int, count: int, size: int) -> bytes:
    return struct.pack("=III", name, kind << 24 | count, size)
