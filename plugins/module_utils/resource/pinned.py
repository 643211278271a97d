# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is at a pin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..bpf import info, pins, provenance
from ..bpf.info import MapInfo, ProgramInfo
from ..bpf.syscall import Fd
from .errors import from_os_error
from .paths import is_home

_KINDS = ("program", "map")


@dataclass(frozen=True)
class Pinned:
    """What is at a pin now: nothing, a program with its provenance, or another kind of thing."""

    pin: str
    kind: str = ""
    program: ProgramInfo | None = None
    map: MapInfo | None = None
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        """Whether it is a program that was loaded by this collection."""
        return self.program is not None and self.marks.get("owner") == provenance.OWNER

    @property
    def bindings(self) -> Iterator[tuple[str, int]]:
        """Name and id of each pinned map that the program was loaded with."""
        for binding in self.marks.get("maps", "").split():
            name, _mark, number = binding.partition("=")
            if number.isdecimal():
                yield name, int(number)


def look(pin: str) -> Pinned:
    """Open what is at the pin and describe it."""
    if not os.path.lexists(pin):
        return Pinned(pin)
    if not os.path.isfile(pin):
        return Pinned(pin, "directory" if os.path.isdir(pin) else "dangling symbolic link")
    try:
        with pins.get(pin) as fd:
            return _describe(pin, fd)
    except OSError as error:
        if error.errno not in pins.NO_PIN:
            raise from_os_error(error, f"look at what is pinned at {pin}") from error
        return Pinned(pin, "file" if os.path.lexists(pin) else "")


def _describe(pin: str, fd: Fd) -> Pinned:
    kind = pins.kind(fd)
    if kind == "program":
        program = info.program(fd)
        return Pinned(pin, kind, program, marks=provenance.read(program))
    return Pinned(pin, kind, map=info.map_(fd) if kind == "map" else None)


def look_all(declared: Mapping[str, str]) -> dict[str, Pinned]:
    """The same for each of several pins by name."""
    return {name: look(pin) for name, pin in declared.items()}


def waiting(declared: Iterable[str]) -> tuple[str, ...]:
    """Staging names beside the pins that a killed run of ours left behind."""
    found = (look(pins.staging_path(pin)) for pin in declared)
    return tuple(
        item.pin for item in found if item.is_ours or (item.kind in _KINDS and is_home(item.pin))
    )


def describe(program: ProgramInfo) -> str:
    """A program in a few words, for an error that names it."""
    return f"id {program.id}, {program.type} {program.name}, tag {program.tag}"
