# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Maps: make them, read them, write them. Keys and values are bytes as the kernel holds them.

Layouts: the MAP_CREATE and MAP_*_ELEM structs of ``union bpf_attr``, include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator, Sequence

from . import info, journal, names
from .syscall import Buffer, Cmd, Fd, bpf, call

# Flags of an update: enum in include/uapi/linux/bpf.h.
ANY = 0
NOEXIST = 1
EXIST = 2

RINGS = ("ringbuf", "user_ringbuf")  # max_entries is their size in bytes
OUTER_TYPES = ("array_of_maps", "hash_of_maps")  # their values are maps
PER_CPU_TYPES = ("percpu_hash", "percpu_array", "lru_percpu_hash", "percpu_cgroup_storage")

_ENOTSUPP = 524  # include/linux/errno.h; the kernel returns it, the C library does not know it
_NAME_BYTES = 15  # BPF_OBJ_NAME_LEN less the final zero
_POSSIBLE_CPUS = "/sys/devices/system/cpu/possible"


def create(
    map_type: str,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    name: str = "",
    btf_fd: int = 0,
    btf_key_type_id: int = 0,
    btf_value_type_id: int = 0,
) -> Fd:
    """Make a map and return its descriptor. Sizes are in bytes, ``flags`` BPF_F_* bits.

    ``map_type`` is a name of ``names.MAP_TYPES``; ``name`` is cut to 15 bytes, as the kernel wants
    it. Raises OSError (EINVAL for a shape that the type cannot have), KeyError for no such type.
    """
    fd = Fd(
        bpf(
            Cmd.MAP_CREATE,
            "7I16s4I",
            names.number_of(names.MAP_TYPES, map_type),
            key_size,
            value_size,
            max_entries,
            flags,
            0,  # inner_map_fd
            0,  # numa_node
            os.fsencode(kernel_name(name)),
            0,  # map_ifindex
            btf_fd,
            btf_key_type_id,
            btf_value_type_id,
            doing=f"create {map_type} map {name}".rstrip(),
        )
    )
    if journal.records():
        journal.made(info.map_(fd).id)
    return fd


def kernel_name(name: str) -> str:
    """What the kernel keeps of a map's or program's name: 15 characters."""
    return name[:_NAME_BYTES]


def possible_cpus() -> int:
    """How many CPUs the kernel provides for: per-CPU maps hold that many values a key."""
    with open(_POSSIBLE_CPUS, encoding="ascii") as file:
        ranges = [part.split("-") for part in file.read().strip().split(",")]
    return sum(int(ends[-1]) - int(ends[0]) + 1 for ends in ranges)


def entries(map_type: str, wanted: int) -> int:
    """What the kernel makes of max_entries, or wants it to be.

    A ring buffer's is a power of two and at least a page (libbpf rounds up since 1.0); a perf event
    array has one for each CPU unless told otherwise.
    """
    if map_type in RINGS and wanted:
        return max(os.sysconf("SC_PAGE_SIZE"), 1 << (wanted - 1).bit_length())
    if map_type == "perf_event_array" and not wanted:
        return possible_cpus()
    return wanted


def value_bytes(map_info: info.MapInfo) -> int:
    """The bytes that a lookup fills and an update reads.

    A per-CPU map has a value for every possible CPU, each rounded up to 8 bytes
    (bpf_map_value_size, kernel/bpf/syscall.c).
    """
    if map_info.type in PER_CPU_TYPES:
        return (map_info.value_size + 7) // 8 * 8 * possible_cpus()
    return map_info.value_size


def lookup(fd: Fd, key: bytes, value_size: int) -> bytes | None:
    """The value of ``key``, or None. ``value_size`` is what ``value_bytes`` says of the map."""
    name, value = Buffer(key), Buffer(value_size)
    try:
        _element(Cmd.MAP_LOOKUP_ELEM, fd, name.address, value.address, 0, "look up a map entry")
    except FileNotFoundError:
        return None
    return value.content


def update(fd: Fd, key: bytes, value: bytes, flags: int = ANY) -> None:
    """Write an entry. E2BIG when a hash is full or an array's index too large, ENOSPC for a trie.

    ``flags``: ANY, NOEXIST (EEXIST when the key is there) or EXIST (ENOENT when it is not).
    Not for tries under a journal, which find shorter prefixes instead of a key: see ``put``.
    """
    back = _way_back(fd, (key,))
    put(fd, key, value, flags)
    journal.undo("write a map entry back", back)


def put(fd: Fd, key: bytes, value: bytes, flags: int = ANY) -> None:
    """The same, of which no journal knows."""
    name, content = Buffer(key), Buffer(value)
    _element(Cmd.MAP_UPDATE_ELEM, fd, name.address, content.address, flags, "write a map entry")


def update_all(fd: Fd, written: Sequence[tuple[bytes, bytes]]) -> None:
    """Write entries in the given order, in one system call where the type has BPF_MAP_UPDATE_BATCH.

    In maps of maps each call waits until no program uses what it replaced (synchronize_rcu), so one
    call for all is many times faster (Linux 6.8). Layout: ``batch`` of ``union bpf_attr``.
    """
    if not written:
        return
    # First, because a call that fails may have written a part.
    journal.undo("write map entries back", _way_back(fd, [key for key, _value in written]))
    _put_all(fd, written)


def _put_all(fd: Fd, written: Sequence[tuple[bytes, bytes]]) -> None:
    keys = Buffer(b"".join(key for key, _value in written))
    values = Buffer(b"".join(value for _key, value in written))
    places = (0, 0, keys.address, values.address, len(written), fd.number, ANY, 0)
    try:
        call(
            Cmd.MAP_UPDATE_BATCH, bytearray(struct.pack("=QQQQIIQQ", *places)), "write map entries"
        )
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, _ENOTSUPP):
            raise
        for key, value in written:
            put(fd, key, value)


def delete(fd: Fd, key: bytes) -> bool:
    """Delete an entry; False when it was not there. EINVAL in arrays, whose entries always are.

    Not for tries under a journal: see ``update``.
    """
    back = _way_back(fd, (key,))
    if not take(fd, key):
        return False
    journal.undo("write a map entry back", back)
    return True


def take(fd: Fd, key: bytes) -> bool:
    """The same, of which no journal knows."""
    name = Buffer(key)
    try:
        _element(Cmd.MAP_DELETE_ELEM, fd, name.address, 0, 0, "delete a map entry")
    except FileNotFoundError:
        return False
    return True


def _way_back(fd: Fd, changed: Sequence[bytes]) -> Callable[[], object]:
    """How to give these keys the values that they have now, or none."""
    if not journal.records():
        return _nothing
    about = info.map_(fd)
    if journal.is_new(about.id):
        return _nothing
    held, outer = journal.hold(fd, about.id), about.type in OUTER_TYPES
    size = 4 if outer else value_bytes(about)
    found = [(key, lookup(fd, key, size)) for key in changed]
    values = [(key, value) for key, value in found if value is not None]
    if outer:
        # What is read is the id of a map, and what is written a descriptor.
        values = [(key, _hold_inner(value)) for key, value in values]
    gone = [key for key, value in found if value is None]

    def back() -> None:
        if values:
            _put_all(held, values)
        for key in gone:
            take(held, key)

    return back


def _hold_inner(value: bytes) -> bytes:
    (map_id,) = struct.unpack("=I", value)
    with info.open_map(map_id) as inner:
        return struct.pack("=I", journal.hold(inner, map_id).number)


def _nothing() -> None:
    """The way back that nobody asks for."""


def keys(fd: Fd, key_size: int) -> Iterator[bytes]:
    """Each key once.

    When a hash loses the key that the walk stands on, the kernel starts again from the first; keys
    seen already are then skipped. A map that keeps changing ends the walk after four times its
    size in steps, with EAGAIN.
    """
    seen: set[bytes] = set()
    following = Buffer(key_size)
    address = 0
    for _step in range(4 * info.map_(fd).max_entries + 64):
        try:
            _element(Cmd.MAP_GET_NEXT_KEY, fd, address, following.address, 0, "walk a map's keys")
        except FileNotFoundError:
            return
        key = following.content
        current = Buffer(key)  # stays referenced until the next step, as its address is used there
        address = current.address
        if key not in seen:
            seen.add(key)
            yield key
    raise OSError(errno.EAGAIN, "the map changes faster than it can be read", "walk a map's keys")


def freeze(fd: Fd) -> None:
    """Make the map read-only for bpf(2), for ever; programs keep the access they have."""
    bpf(Cmd.MAP_FREEZE, "I", fd.number, doing="freeze a map")


def _element(cmd: Cmd, fd: Fd, key: int, value: int, flags: int, doing: str) -> None:
    bpf(cmd, "IIQQQ", fd.number, 0, key, value, flags, doing=doing)
