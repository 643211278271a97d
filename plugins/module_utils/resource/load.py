# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Loading: from what is declared to descriptors, with nothing pinned yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ..bpf import info, libbpf, maps, pins, provenance
from ..bpf.syscall import Fd
from . import bcc_source, rodata
from .errors import Failure
from .object import Facts, Source, opened

# The kernel wants no expected attach type here, and its number 0 has this name.
_NO_ATTACH_TYPE = {"ext": "cgroup_inet_ingress"}


@dataclass(frozen=True)
class Recipe:
    """All that makes a loaded program what it is. Map pins are absolute paths."""

    source: Source
    type: str = ""
    attach_type: str = ""
    map_pins: Mapping[str, str] = field(default_factory=dict)
    max_entries: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, object] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)  # stack, release and the user's labels

    @property
    def config(self) -> str:
        """Digest of what shapes the program besides the object's bytes."""
        shape = {
            "type": self.type,
            "attach_type": self.attach_type,
            "maps": dict(self.map_pins),
            "max_entries": dict(self.max_entries),
            "constants": dict(self.constants),
        }
        return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]

    def provenance(self, sha256: str, program: str) -> dict[str, str]:
        """What the kernel is to hold with the program, but for the ids of its maps."""
        constants = " ".join(f"{name}={self.constants[name]}" for name in sorted(self.constants))
        fixed = {
            "owner": provenance.OWNER,
            "sha256": sha256,
            "config": self.config,
            "program": program,
        }
        return {**fixed, **({"constants": constants} if constants else {}), **self.marks}


@dataclass(frozen=True)
class Loaded:
    """Descriptors of freshly loaded programs and of the maps that the declaration names."""

    programs: Mapping[str, Fd]
    maps: Mapping[str, Fd]


def bindings(pinned: Mapping[str, int], used: tuple[int, ...]) -> str:
    """Which declared map a program uses, as provenance keeps it: ``name=id name=id``."""
    return " ".join(f"{name}={pinned[name]}" for name in sorted(pinned) if pinned[name] in used)


@dataclass(frozen=True)
class Wanted:
    """What to load. Declared maps are re-used from their pins, but for those named here."""

    programs: tuple[str, ...]
    fresh_maps: frozenset[str]  # created
    lost_maps: Mapping[str, int]  # by name the ids of those that have no pin any more


@contextmanager
def reopened(lost_maps: Mapping[str, int]) -> Iterator[Loaded]:
    """Maps by their ids, and no program."""
    with ExitStack() as stack:
        fds = {name: stack.enter_context(info.open_map(id_)) for name, id_ in lost_maps.items()}
        yield Loaded({}, fds)


@contextmanager
def load(recipe: Recipe, wanted: Wanted) -> Iterator[Loaded]:
    """Load and mark the programs; all descriptors are closed at the end."""
    with ExitStack() as stack:
        if recipe.source.compiler == "bcc":
            loaded = Loaded(
                {
                    name: stack.enter_context(fd)
                    for name, fd in bcc_source.load(
                        recipe.source, wanted.programs, recipe.type
                    ).items()
                },
                {},
            )
        else:
            facts, handle = stack.enter_context(opened(recipe.source))
            _configure(recipe, facts, handle, wanted)
            if recipe.type == "ext":
                stack.enter_context(_as_components(handle, wanted.programs))
            handle.load()
            loaded = Loaded(
                {name: stack.enter_context(handle.program_fd(name)) for name in wanted.programs},
                {name: stack.enter_context(handle.map_fd(name)) for name in recipe.map_pins},
            )
            _require_whole(facts, loaded)
        sha256 = identity(recipe.source) if recipe.source.compiler == "bcc" else facts.sha256
        _mark(recipe, sha256, loaded)
        yield loaded


def _as_components(handle: libbpf.Object, programs: tuple[str, ...]) -> Fd:
    """Load them for a dispatcher of XDP programs; this one is gone when they join a real one."""
    from ..bpf import xdp_dispatcher  # takes 4 ms to read, and few want it

    if not xdp_dispatcher.components_load():
        raise Failure(
            "this kernel loads no programs of type ext (some hardened kernels refuse them even to "
            "root; they need BTF, the JIT and Linux 5.10); leave out the type and attach the "
            "program to an interface of its own"
        )
    dispatcher = xdp_dispatcher.load(xdp_dispatcher.Config((xdp_dispatcher.Slot(),)))
    for name in programs:
        handle.set_target(name, dispatcher, "prog0")
    return dispatcher


def identity(source: Source) -> str:
    """The identity of a BCC source, whose object is made anew on each host."""
    return bcc_source.identity(source)


def _configure(recipe: Recipe, facts: Facts, handle: libbpf.Object, wanted: Wanted) -> None:
    handle.select(frozenset(wanted.programs))
    for name in wanted.programs:
        if recipe.type or recipe.attach_type:
            type_ = recipe.type or facts.programs[name].type
            handle.set_type(name, type_, recipe.attach_type or _NO_ATTACH_TYPE.get(type_, ""))
    for name, decl in facts.maps.items():
        count = maps.entries(decl.type, recipe.max_entries.get(name, decl.max_entries))
        if count != decl.max_entries:
            handle.set_max_entries(name, count)
    for name, pin in recipe.map_pins.items():
        if name not in wanted.fresh_maps:
            lost = wanted.lost_maps.get(name)
            with info.open_map(lost) if lost else pins.get(pin) as fd:
                handle.reuse(name, fd)
    for name, content in rodata.contents(facts, recipe.constants).items():
        with _frozen(facts.maps[name], content) as fd:
            handle.reuse(name, fd)


def _frozen(decl: libbpf.MapDecl, content: bytes) -> Fd:
    """The constants' map, made here and without BTF so that bpftool finds the provenance instead.

    ``bpftool prog show`` prints the metadata of the first map with BTF and ".rodata" in its name.
    """
    fd = maps.create("array", 4, decl.value_size, 1, decl.flags, decl.name)
    maps.update(fd, bytes(4), content.ljust(decl.value_size, b"\0"))
    maps.freeze(fd)
    return fd


def _require_whole(facts: Facts, loaded: Loaded) -> None:
    """Refuse programs without their names or types.

    libbpf tries once whether the kernel takes them, as each has since Linux 5.0, and loads without
    when the trial fails for whatever reason; maps then have no types either, for good.
    """
    for name, fd in loaded.programs.items():
        about = info.program(fd)
        if not about.name or (facts.elf.sections.get(".BTF") and not about.btf_id):
            raise Failure(
                f"{name} was loaded without its {'types' if about.name else 'name'}, because a "
                "trial of libbpf's failed, for lack of memory perhaps; run it again"
            )


def _mark(recipe: Recipe, sha256: str, loaded: Loaded) -> None:
    pinned = {name: info.map_(fd).id for name, fd in loaded.maps.items()}
    for name, fd in loaded.programs.items():
        values = recipe.provenance(sha256, name)
        used = bindings(pinned, info.program(fd).map_ids)
        try:
            provenance.write(fd, {**values, **({"maps": used} if used else {})})
        except OSError as error:
            raise Failure(
                f"cannot bind provenance to {name}: {error.strerror}; "
                "BPF_PROG_BIND_MAP needs Linux 5.10"
            ) from error
