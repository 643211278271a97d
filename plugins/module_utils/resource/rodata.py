# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The read-only data of an object: its constants, as compiled and as declared."""

from __future__ import annotations

from collections.abc import Mapping

from ..bpf import btf
from .errors import Failure
from .object import Facts

_SECTION = ".rodata"


def contents(facts: Facts, constants: Mapping[str, object]) -> dict[str, bytes]:
    """Map name to bytes for each read-only data map, with the declared constants in place.

    Raises Failure for a constant that the object does not have, or a value it cannot hold.
    """
    sections = {name: _section(name) for name in facts.maps if _is_rodata(name, facts)}
    data = {section: bytearray(facts.elf.sections[section]) for section in sections.values()}
    if constants:
        _set_all(facts, data, constants)
    return {name: bytes(data[section]) for name, section in sections.items()}


def _is_rodata(name: str, facts: Facts) -> bool:
    return facts.maps[name].internal and _section(name) in facts.elf.sections


def _section(map_name: str) -> str:
    """libbpf names the map of ``.rodata`` "<object>.rodata", others by their section."""
    if map_name.startswith(_SECTION + "."):
        return map_name
    return _SECTION if map_name.endswith(_SECTION) and map_name[0] != "." else ""


def _set_all(facts: Facts, data: Mapping[str, bytearray], constants: Mapping[str, object]) -> None:
    # Imported only for objects with constants: the encoders take 8 ms to read on every run, since
    # Ansible runs modules from an archive without byte code.
    from ..bpf import btf_values
    from ..bpf.values import BadValue

    if ".BTF" not in facts.elf.sections:
        raise Failure(f"{facts.path} has no BTF, so its constants have no types; use clang -g")
    try:
        types = btf.parse(facts.elf.sections[".BTF"])
        known = _variables(types, data)
        shapes = {
            name: btf_values.shape_of(types, known[name][1]) for name in constants if name in known
        }
    except (ValueError, LookupError) as error:
        raise Failure(f"the BTF of {facts.path} is damaged; copy or build it again") from error
    for name, value in constants.items():
        if name not in shapes or name not in facts.elf.symbols:
            raise Failure(_unknown(facts, name, sorted(known)))
        try:
            encoded = shapes[name].encode(value, f"constant {name}")
        except BadValue as error:
            raise Failure(f"{facts.path}: {error}") from error
        section = known[name][0]
        offset = facts.elf.symbols[name].offset
        data[section][offset : offset + len(encoded)] = encoded


def _variables(types: btf.Btf, data: Mapping[str, bytearray]) -> dict[str, tuple[str, int]]:
    found = {}
    for section in data:
        try:
            variables = btf.variables(types, section)
        except KeyError:
            continue  # string literals: a section without variables
        for name, member in variables.items():
            found[name] = (section, types.types[member.type_id].type_id)
    return found


def _unknown(facts: Facts, name: str, known: list[str]) -> str:
    symbol = facts.elf.symbols.get(name)
    if symbol is not None and symbol.section.startswith((".data", ".bss")):
        return f"{name} of {facts.path} is no constant but a variable; declare it const volatile"
    return f"{facts.path} has no constant {name!r}; it has: {', '.join(known) or 'none'}"
