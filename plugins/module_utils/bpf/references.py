# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Who keeps a map alive, as far as this process can see.

The kernel counts references and names none of them. What can be seen are programs, sockmap links,
maps of maps, the pins of this mount namespace and the descriptors of this PID namespace's
processes. Pins of other mount namespaces and descriptors on their way through a socket cannot be
seen; nor is it known how long a process keeps its descriptor.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from . import info, maps, mounts, pins


def of_map(map_id: int, but_pin: str) -> Iterator[str]:
    """What refers to the map besides the pin ``but_pin`` and this process, cheapest to find first.

    Each is told in words, such as ``program 12 (redirect)``.
    """
    yield from _programs(map_id)
    yield from _links(map_id)
    yield from _pins(map_id, but_pin)
    yield from _outer_maps(map_id)
    yield from _processes(map_id)


def _programs(map_id: int) -> Iterator[str]:
    for prog_id in info.program_ids():
        try:
            with info.open_program(prog_id) as fd:
                program = info.program(fd)
        except FileNotFoundError:
            continue
        if map_id in program.map_ids:
            yield f"program {prog_id} ({program.name})"


def _links(map_id: int) -> Iterator[str]:
    for link in info.links():
        if link.map_id == map_id:
            yield f"link {link.id}"


def _pins(map_id: int, but_pin: str) -> Iterator[str]:
    """Other names of the map. Another mount of the same bpffs shows ``but_pin`` again."""
    own = os.stat(but_pin)
    for mount in mounts.visible(mounts.mounts(), "bpf"):
        for directory, _directories, files in os.walk(mount.point):
            for file in files:
                path = os.path.join(directory, file)
                if path != but_pin and _pinned_map(path) == map_id:
                    status = os.stat(path)
                    same = (status.st_dev, status.st_ino) == (own.st_dev, own.st_ino)
                    if not same or status.st_nlink > 1:
                        yield f"pin {path}"


def _pinned_map(path: str) -> int:
    """The id of the map pinned at ``path``; 0 when it is another object, or gone."""
    try:
        with pins.get(path) as fd:
            return info.map_(fd).id if pins.kind(fd) == "map" else 0
    except OSError:
        return 0


def _outer_maps(map_id: int) -> Iterator[str]:
    for outer_id in info.map_ids():
        try:
            with info.open_map(outer_id) as fd:
                outer = info.map_(fd)
                if outer.type not in maps.OUTER_TYPES:
                    continue
                for key in maps.keys(fd, outer.key_size):
                    if maps.lookup(fd, key, 4) == struct.pack("=I", map_id):
                        yield f"map {outer_id} ({outer.name})"
                        break
        except FileNotFoundError:
            continue


def _processes(map_id: int) -> Iterator[str]:
    for process in filter(str.isdigit, os.listdir("/proc")):
        if int(process) == os.getpid():
            continue
        try:
            for number in os.listdir(f"/proc/{process}/fd"):
                if _descriptor_map(f"/proc/{process}", number) == map_id:
                    yield f"process {process} ({_name(process)})"
                    break
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue


def _descriptor_map(process: str, number: str) -> int:
    """The id of the map behind a process's descriptor, or 0."""
    if os.readlink(f"{process}/fd/{number}") != "anon_inode:bpf-map":
        return 0
    with open(f"{process}/fdinfo/{number}", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    return int(fields.get("map_id", 0))


def _name(process: str) -> str:
    with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
        return file.read().strip()
