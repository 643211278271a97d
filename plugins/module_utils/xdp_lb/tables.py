# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The maps of a pinned load balancer: what user space wrote into them, read and written.

What the data plane writes (connections, counters) is not here.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..bpf import info, map_contents, maps, pins
from ..bpf.info import MapInfo
from ..bpf.syscall import Fd
from ..resource.errors import Failure
from . import layout
from .layout import Backend, Settings

SERVICE_MAPS = ("services4", "services6")
TABLES = (*SERVICE_MAPS, "service_filter", "service_names", "backends", "rings", "settings")
COUNTERS = ("service_counters", "backend_counters")

RING_NAME = "ring"  # what the kernel calls each ring's map


@dataclass(frozen=True)
class Map:
    """An open map and what the kernel says of it."""

    fd: Fd
    info: MapInfo


@dataclass(frozen=True)
class Tables:
    """All that user space wrote. Services are by the bytes of their keys, the rest by id.

    ``limits`` is how many entries each map takes.
    """

    services: Mapping[bytes, bytes] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)
    backends: Mapping[int, Backend] = field(default_factory=dict)
    rings: Mapping[int, bytes] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)
    filter: bytes = layout.pack_filter(())
    limits: Mapping[str, int] = field(default_factory=dict)


def maps_dir(pin_dir: str) -> str:
    """Where the maps of the balancer pinned in ``pin_dir`` are pinned by their names."""
    return os.path.join(pin_dir, "maps")


@contextlib.contextmanager
def opened(pin_dir: str, names: Iterable[str] = TABLES) -> Iterator[Mapping[str, Map]]:
    """Open pinned maps of the balancer by name, each checked against the layout.

    Raises FileNotFoundError for a map that is not pinned, Failure for one of another layout or what
    is no map.
    """
    with contextlib.ExitStack() as stack:
        found = {}
        for name in names:
            path = os.path.join(maps_dir(pin_dir), name)
            fd = stack.enter_context(pins.get(path))
            kind = pins.kind(fd)
            if kind != "map":
                raise Failure(f"{path} holds a {kind}, not the map {name} of a load balancer")
            about = info.map_(fd)
            layout.check(name, about)
            found[name] = Map(fd, about)
        yield found


def read(found: Mapping[str, Map], rings: bool = True) -> Tables:
    """What the maps hold. Raises Failure when another layout was written into them.

    A ring is 256 KiB: who reads often leaves them out and asks for one with ``read_ring``.
    """
    settings = Settings.unpack(_entry(found["settings"], 0))
    layout.check_version(settings)
    services: dict[bytes, bytes] = {}
    for name in SERVICE_MAPS:
        services.update(map_contents.items(found[name].fd, found[name].info))
    names = {
        number: layout.unpack_service_name(raw) for number, raw in _array(found["service_names"])
    }
    backends = {number: Backend.unpack(raw) for number, raw in _array(found["backends"])}
    return Tables(
        services,
        names,
        {number: each for number, each in backends.items() if each.address is not None},
        dict(_rings(found["rings"])) if rings else {},
        settings,
        _entry(found["service_filter"], 0),
        {name: found[name].info.max_entries for name in found},
    )


def _entry(table: Map, number: int) -> bytes:
    size = maps.value_bytes(table.info)
    return maps.lookup(table.fd, layout.key(number), size) or bytes(size)


def _array(table: Map) -> Iterator[tuple[int, bytes]]:
    """The entries that are not zero. Id 0 means none: nobody reads what it holds."""
    nothing = bytes(table.info.value_size)
    for key, raw in map_contents.items(table.fd, table.info):
        number: int = layout.KEY.unpack(key)[0]
        if number and raw != nothing:
            yield number, raw


def _rings(outer: Map) -> Iterator[tuple[int, bytes]]:
    for number in range(outer.info.max_entries):
        ring = _ring(outer, number)
        if ring:
            yield number, ring


def read_ring(found: Mapping[str, Map], number: int) -> bytes:
    """One service's ring, by its id; b"" when it has none."""
    return _ring(found["rings"], number)


def ring_map_id(found: Mapping[str, Map], number: int) -> int:
    """The id of the map that holds a service's ring, another with each change; 0 for none."""
    return _ring_map_id(found["rings"], number)


def _ring(outer: Map, number: int) -> bytes:
    map_id = _ring_map_id(outer, number)
    if not map_id:
        return b""
    with info.open_map(map_id) as inner:
        return maps.lookup(inner, layout.key(0), layout.RING_BYTES) or b""


def _ring_map_id(outer: Map, number: int) -> int:
    found = maps.lookup(outer.fd, layout.key(number), 4)
    return layout.KEY.unpack(found)[0] if found else 0


def put_service(found: Mapping[str, Map], key: bytes, value: bytes) -> None:
    """Let packets with this destination be balanced so from now on."""
    maps.update(_service_map(found, key).fd, key, value)


def remove_service(found: Mapping[str, Map], key: bytes) -> None:
    """Let packets with this destination pass."""
    maps.delete(_service_map(found, key).fd, key)


def _service_map(found: Mapping[str, Map], key: bytes) -> Map:
    (table,) = (found[name] for name in SERVICE_MAPS if found[name].info.key_size == len(key))
    return table


def put_filter(found: Mapping[str, Map], keys: Iterable[bytes]) -> None:
    """Let the data plane look for services with these keys and no others."""
    maps.update(found["service_filter"].fd, layout.key(0), layout.pack_filter(keys))


def put_name(found: Mapping[str, Map], number: int, name: str) -> None:
    """Give a service's id a name, or with "" take it away."""
    maps.update(found["service_names"].fd, layout.key(number), layout.pack_service_name(name))


def put_backends(found: Mapping[str, Map], records: Mapping[int, Backend | None]) -> None:
    """Write backends by id; None frees the id."""
    nothing = bytes(found["backends"].info.value_size)
    written = [
        (layout.key(number), record.pack() if record else nothing)
        for number, record in sorted(records.items())
    ]
    maps.update_all(found["backends"].fd, written)


def put_rings(found: Mapping[str, Map], rings: Mapping[int, bytes]) -> None:
    """Replace rings whole by id, and wait until no packet is under way by an old one."""
    with contextlib.ExitStack() as stack:
        written = []
        for number, ring in sorted(rings.items()):
            inner = stack.enter_context(new_ring(ring))
            written.append((layout.key(number), struct.pack("=I", inner.number)))
        maps.update_all(found["rings"].fd, written)


def new_ring(content: bytes) -> Fd:
    """A map with a ring in it, which nothing refers to yet."""
    inner = maps.create("array", layout.KEY.size, layout.RING_BYTES, 1, name=RING_NAME)
    try:
        maps.update(inner, layout.key(0), content)
    except OSError:
        inner.close()
        raise
    return inner


def remove_ring(found: Mapping[str, Map], number: int) -> None:
    """Take a service's ring away, and wait until no packet is under way by it."""
    maps.delete(found["rings"].fd, layout.key(number))


def put_settings(found: Mapping[str, Map], settings: Settings) -> None:
    """Write what holds for the whole balancer."""
    maps.update(found["settings"].fd, layout.key(0), settings.pack())


def clear_counters(found: Mapping[str, Map], name: str, numbers: Iterable[int]) -> None:
    """Let the counters of ids that mean something new begin at zero."""
    table = found[name]
    nothing = bytes(maps.value_bytes(table.info))
    for number in numbers:
        maps.update(table.fd, layout.key(number), nothing)
