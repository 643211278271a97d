# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What has to be known of an ELF object before libbpf sees it.

libbpf says only "failed to open" for most defects; here each has its own words. Layouts: System V
ABI, chapter 4 (Elf64_Ehdr, Elf64_Shdr, Elf64_Sym); EM_BPF is include/uapi/linux/elf-em.h.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass

EM_BPF = 247
_ET_REL = 1
_SHT_SYMTAB = 2
_SHT_NOBITS = 8
_MACHINES = {3: "x86", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 22: "S390", 40: "ARM"} | {
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}


@dataclass(frozen=True)
class Symbol:
    """Where a global lies: its section's name, offset and size in bytes."""

    section: str
    offset: int
    size: int


@dataclass(frozen=True)
class Elf:
    """A BPF object's sections by name (empty for those without bytes) and its symbols."""

    sections: Mapping[str, bytes]
    symbols: Mapping[str, Symbol]
    byteorder: str


def parse(content: bytes) -> Elf:
    """Read a relocatable BPF object. Raises ValueError that says what is wrong with it."""
    order = _byteorder(content)
    mark = "<" if order == "little" else ">"
    try:
        return _parse(content, order, mark)
    except (struct.error, IndexError, OverflowError, ValueError) as error:
        raise ValueError(
            "is truncated or damaged: its section table points past its end; copy or build it again"
        ) from error


def _byteorder(content: bytes) -> str:
    if content[:4] != b"\x7fELF":
        raise ValueError("is not an ELF file; compile it with clang -target bpf")
    if len(content) < 64:
        raise ValueError("is truncated: shorter than an ELF header; copy or build it again")
    if content[4] != 2:
        raise ValueError(
            "is a 32-bit ELF file, not a BPF object; compile it with clang -target bpf"
        )
    order = {1: "little", 2: "big"}.get(content[5], "unknown")
    mark = "<" if order == "little" else ">"
    kind, machine = struct.unpack_from(mark + "HH", content, 16)
    if machine != EM_BPF:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise ValueError(f"is built for {name}, not for BPF; compile it with clang -target bpf")
    if order != sys.byteorder:
        raise ValueError(
            f"is {order}-endian BPF and this host is {sys.byteorder}-endian; "
            f"compile it with clang -target bpf{'el' if sys.byteorder == 'little' else 'eb'}"
        )
    if kind != _ET_REL:
        raise ValueError("is linked; give the relocatable object that clang -c writes")
    return order


def _parse(content: bytes, order: str, mark: str) -> Elf:
    (table,) = struct.unpack_from(mark + "Q", content, 40)
    entry_size, count, names_index = struct.unpack_from(mark + "HHH", content, 58)
    headers = [
        struct.unpack_from(mark + "IIQQQQIIQQ", content, table + index * entry_size)
        for index in range(count)
    ]
    texts = _bytes(content, headers[names_index])
    section_names = [_string(texts, header[0]) for header in headers]
    sections = {
        name: _bytes(content, header) for name, header in zip(section_names, headers) if name
    }
    symbols: dict[str, Symbol] = {}
    for header in headers:
        if header[1] == _SHT_SYMTAB:
            strings = _bytes(content, headers[header[6]])
            symbols.update(_symbols(_bytes(content, header), strings, section_names, mark))
    return Elf(sections, symbols, order)


def _bytes(content: bytes, header: tuple[int, ...]) -> bytes:
    kind, offset, size = header[1], header[4], header[5]
    if kind == _SHT_NOBITS:
        return b""
    if offset + size > len(content):
        raise IndexError("section past the end")
    return content[offset : offset + size]


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode() if offset < len(table) else ""


def _symbols(
    table: bytes, strings: bytes, section_names: list[str], mark: str
) -> Mapping[str, Symbol]:
    found: dict[str, Symbol] = {}
    for name, _info, _other, index, value, size in struct.iter_unpack(mark + "IBBHQQ", table):
        if name and 0 < index < len(section_names):
            found[_string(strings, name)] = Symbol(section_names[index], value, size)
    return found
