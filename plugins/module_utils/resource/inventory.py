# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Everything BPF on this host, read once. Nothing is changed, so no lock is taken."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from ..bpf import info, mounts, pins, provenance
from ..bpf.info import LinkInfo, MapInfo, ProgramInfo
from ..bpf.syscall import Fd
from . import attachments, attachments_net
from .attachments import Attachment

Info = TypeVar("Info", ProgramInfo, MapInfo, LinkInfo)


@dataclass(frozen=True)
class Pin:
    """A name in a BPF file system. ``kind``: program, map or link."""

    path: str
    kind: str
    id: int


@dataclass(frozen=True)
class Snapshot:
    """The host's programs, maps and links by id, and what refers to them."""

    programs: dict[int, ProgramInfo]
    maps: dict[int, MapInfo]
    links: dict[int, LinkInfo]
    origins: dict[int, dict[str, str]]  # provenance by program id
    pins: tuple[Pin, ...] = ()
    attachments: tuple[Attachment, ...] = ()


def take() -> Snapshot:
    """Read the host. Raises OSError when the kernel does not let us."""
    programs = _all(info.program_ids(), info.open_program, info.program)
    maps = _all(info.map_ids(), info.open_map, info.map_)
    links = {link.id: link for link in info.links()}
    origins = {number: provenance.read(about) for number, about in programs.items()}
    used = {
        map_id for number, about in programs.items() if origins[number] for map_id in about.map_ids
    }
    tail_calls = attachments.of_prog_arrays(maps, used)
    return Snapshot(
        programs, maps, links, origins, tuple(pinned()), (*attached(maps, links), *tail_calls)
    )


def _all(
    ids: Iterable[int], open_: Callable[[int], Fd], read: Callable[[Fd], Info]
) -> dict[int, Info]:
    """Describe each object; one that goes away meanwhile is left out."""
    found: dict[int, Info] = {}
    for number in ids:
        try:
            with open_(number) as fd:
                found[number] = read(fd)
        except FileNotFoundError:
            continue
    return found


def bpffs() -> list[str]:
    """Where BPF file systems are mounted and can be seen, each once."""
    by_device: dict[tuple[str, str], str] = {}
    for mount in mounts.visible(mounts.mounts(), "bpf"):
        known = by_device.get((mount.device, mount.root), mount.point)
        by_device[mount.device, mount.root] = min(known, mount.point, key=len)
    return sorted(by_device.values())


def pinned() -> Iterator[Pin]:
    """Every pin that this mount namespace can see."""
    for root in bpffs():
        for directory, _directories, files in os.walk(root):
            for name in files:
                if "." not in name:  # with a dot: the kernel's own iterators, not pins
                    yield from _pin(os.path.join(directory, name))


def _pin(path: str) -> Iterator[Pin]:
    try:
        fd = pins.get(path)
    except (FileNotFoundError, PermissionError):
        return
    with fd:
        kind = pins.kind(fd)
        if kind == "program":
            yield Pin(path, kind, info.program(fd).id)
        elif kind == "map":
            yield Pin(path, kind, info.map_(fd).id)
        elif kind == "link":
            yield Pin(path, kind, info.link(fd).id)


def attached(maps: dict[int, MapInfo], links: dict[int, LinkInfo]) -> Iterator[Attachment]:
    """What links hold, then what hangs at hooks without one."""
    cgroups = attachments.cgroup_paths()
    held = tuple(attachments.of_links(links.values(), cgroups, maps))
    interfaces = tuple(attachments_net.of_interfaces(links.values()))
    placed = {item.link_id: item for item in interfaces if item.link_id}
    yield from (placed.get(item.link_id, item) for item in held)
    yield from attachments.of_cgroups(cgroups, held)
    yield from attachments.of_sockmaps(maps, held)
    yield from (item for item in interfaces if not item.link_id)
