# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a map holds: its entries, whether it holds any, and whether it may be written."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from . import info, maps
from .syscall import Buffer, Cmd, Fd, call

# Types whose values are bytes that bpf(2) reads and writes as they are.
ARRAYS = ("array", "percpu_array")
HASHES = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")
TRIE = "lpm_trie"
# Values of these are ifindexes or queue sizes, as long as they are four bytes long.
TARGETS = ("devmap", "devmap_hash", "cpumap")
INDEXED = (*ARRAYS, "devmap", "cpumap")

# Those that take entries until they are full, and of which the kernel does not say how many.
FILLED = (*HASHES, TRIE, "hash_of_maps", "devmap_hash", "sockhash")

_BATCHED = ("array", *HASHES)  # a trie is walked by key in any case
_BATCH_BYTES = 1 << 18  # keys and values of one batch
_ENOTSUPP = 524  # include/linux/errno.h; the kernel returns it, the C library does not know it
_STREAMS = ("queue", "stack")


def holds_data(map_info: info.MapInfo) -> bool:
    """Whether bpf(2) can read and write this map's values as data."""
    if map_info.type in TARGETS:
        return map_info.value_size == 4
    return map_info.type in (*ARRAYS, *HASHES, TRIE)


def is_frozen(fd: Fd) -> bool:
    """Whether bpf(2) may not write the map any more (fdinfo, since Linux 5.2)."""
    with open(f"/proc/self/fdinfo/{fd.number}", encoding="ascii") as file:
        return any(line.split() == ["frozen:", "1"] for line in file)


def items(fd: Fd, map_info: info.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """Each key with its value, in no order; one that a program deletes meanwhile may be left out.

    Read in batches where the type has them: a hundred times fewer system calls, and a walk that
    no deletion sends back to the start.
    """
    key_size, value_size = map_info.key_size, maps.value_bytes(map_info)
    for keys, values in blocks(fd, map_info):
        for index in range(len(keys) // key_size):
            key = keys[index * key_size : (index + 1) * key_size]
            yield key, values[index * value_size : (index + 1) * value_size]


def blocks(fd: Fd, map_info: info.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """What ``items`` yields, many at a time: their keys end to end, and their values."""
    if map_info.type in _BATCHED:
        try:
            yield from _batches(fd, map_info)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP):
                raise
    size = maps.value_bytes(map_info)
    for key in maps.keys(fd, map_info.key_size):
        value = maps.lookup(fd, key, size)
        if value is not None:
            yield key, value


def _batches(fd: Fd, map_info: info.MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """BPF_MAP_LOOKUP_BATCH, Linux 5.6. Layout: ``batch`` of ``union bpf_attr``."""
    key_size, value_size = map_info.key_size, maps.value_bytes(map_info)
    room = min(max(_BATCH_BYTES // (key_size + value_size), 16), map_info.max_entries)
    before, after = Buffer(max(key_size, 4)), Buffer(max(key_size, 4))
    start = 0
    while True:
        keys, values = Buffer(room * key_size), Buffer(room * value_size)
        attr = bytearray(
            struct.pack(
                "=QQQQIIQQ",
                start,
                after.address,
                keys.address,
                values.address,
                room,
                fd.number,
                0,
                0,
            )
        )
        last = False
        try:
            call(Cmd.MAP_LOOKUP_BATCH, attr, "read a map's entries")
        except OSError as error:
            if error.errno == errno.ENOSPC and room < map_info.max_entries:
                room = min(2 * room, map_info.max_entries)  # a bucket did not fit
                continue
            if error.errno != errno.ENOENT:
                raise
            last = True
        count = struct.unpack_from("=I", attr, 32)[0]
        yield keys.content[: count * key_size], values.content[: count * value_size]
        if last:
            return
        before, after = after, before
        start = before.address


def count(fd: Fd, map_info: info.MapInfo) -> int:
    """How many entries there are, of a type of ``FILLED``.

    The kernel copies them in batches into memory that nobody looks at: 0.2 microseconds an entry.
    Where a type has no batches its keys are walked, at 2.5 microseconds each; then the number is
    only near where entries are deleted meanwhile, and at most ``max_entries``.
    """
    try:
        return _count_batches(fd, map_info)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP):
            raise
    return _count_keys(fd, map_info)


def _count_batches(fd: Fd, map_info: info.MapInfo) -> int:
    key_size, value_size = map_info.key_size, maps.value_bytes(map_info)
    room = min(max(_BATCH_BYTES // (key_size + value_size), 16), map_info.max_entries)
    keys, values = Buffer(room * key_size), Buffer(room * value_size)
    before, after = Buffer(max(key_size, 4)), Buffer(max(key_size, 4))
    start = found = 0
    while True:
        places = (start, after.address, keys.address, values.address, room, fd.number, 0, 0)
        attr = bytearray(struct.pack("=QQQQIIQQ", *places))
        try:
            call(Cmd.MAP_LOOKUP_BATCH, attr, "count a map's entries")
        except OSError as error:
            if error.errno == errno.ENOENT:  # that was the last batch
                return found + _batch_count(attr)
            if error.errno != errno.ENOSPC or room >= map_info.max_entries:
                raise
            room = min(2 * room, map_info.max_entries)  # a bucket did not fit
            keys, values = Buffer(room * key_size), Buffer(room * value_size)
            continue
        found += _batch_count(attr)
        before, after = after, before
        start = before.address


def _batch_count(attr: bytearray) -> int:
    number: int = struct.unpack_from("=I", attr, 32)[0]
    return number


def _count_keys(fd: Fd, map_info: info.MapInfo) -> int:
    """Walk in the same memory: the kernel reads a key before it writes the next one there."""
    key = Buffer(map_info.key_size)
    attr = bytearray(struct.pack("=IIQQQ", fd.number, 0, 0, key.address, 0))
    for found in range(map_info.max_entries):
        try:
            call(Cmd.MAP_GET_NEXT_KEY, attr, "count a map's keys")
        except FileNotFoundError:
            return found
        struct.pack_into("=Q", attr, 8, key.address)
    return map_info.max_entries


def is_empty(fd: Fd, map_info: info.MapInfo) -> bool:
    """Whether dropping the map loses nothing: no entry; in an array, none that is not zero.

    A ring buffer counts as empty: without a program and a reader nobody misses its records. A
    bloom filter, and a type newer than this collection, counts as not empty.
    """
    if map_info.type in ("ringbuf", "user_ringbuf", "perf_event_array"):
        return True
    if map_info.type in ARRAYS:
        return not any(any(value) for _key, value in items(fd, map_info))
    if map_info.type in _STREAMS:
        return maps.lookup(fd, b"", map_info.value_size) is None
    size = maps.value_bytes(map_info)
    try:
        return not any(_is_there(fd, key, size) for key in maps.keys(fd, map_info.key_size))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP):
            return False
        raise


def _is_there(fd: Fd, key: bytes, size: int) -> bool:
    """Whether a key of the walk holds anything: sockmaps and their like list empty places, too."""
    try:
        return maps.lookup(fd, key, size) is not None
    except OSError:
        return True  # there, but not to be read (ENOSPC of a sockmap)
