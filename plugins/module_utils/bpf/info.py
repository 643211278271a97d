# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the kernel says of its programs, maps and links.

Layouts: ``struct bpf_prog_info``, ``bpf_map_info`` and ``bpf_link_info`` of
include/uapi/linux/bpf.h. An older kernel fills in less and leaves the rest zero.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from . import names
from .syscall import Buffer, Cmd, Fd, bpf, call


@dataclass(frozen=True)
class ProgramInfo:
    """One loaded program. ``load_time`` is in ns since boot, ``run_time`` in ns."""

    id: int
    type: str
    name: str  # at most 15 characters: the kernel cuts it
    tag: str
    map_ids: tuple[int, ...]
    btf_id: int
    load_time: int
    uid: int
    gpl: bool
    verified_instructions: int  # 0 before Linux 5.16
    run_time: int
    run_count: int


@dataclass(frozen=True)
class MapInfo:
    """One map. Sizes are in bytes; ``flags`` are BPF_F_* bits."""

    id: int
    type: str
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int


@dataclass(frozen=True)
class LinkInfo:
    """One link. The fields that its type does not have are zero or empty."""

    id: int
    type: str
    prog_id: int
    attach_type: str = ""
    cgroup_id: int = 0  # inode of the cgroup's directory; 0 when the cgroup is gone
    ifindex: int = 0  # 0 when the interface is gone
    netns_ino: int = 0
    map_id: int = 0


def _get_info(fd: Fd, memory: Buffer, doing: str) -> bytes:
    bpf(Cmd.OBJ_GET_INFO_BY_FD, "IIQ", fd.number, memory.size, memory.address, doing=doing)
    return memory.content


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("ascii", "replace")


def program(fd: Fd) -> ProgramInfo:
    """Describe the program behind ``fd``."""
    raw = _get_info(fd, Buffer(232), "read program info")
    return ProgramInfo(
        type=names.name_of(names.PROG_TYPES, struct.unpack_from("=I", raw, 0)[0]),
        id=struct.unpack_from("=I", raw, 4)[0],
        tag=raw[8:16].hex(),
        load_time=struct.unpack_from("=Q", raw, 40)[0],
        uid=struct.unpack_from("=I", raw, 48)[0],
        map_ids=_program_map_ids(fd, struct.unpack_from("=I", raw, 52)[0]),
        name=_text(raw[64:80]),
        gpl=bool(raw[84] & 1),
        btf_id=struct.unpack_from("=I", raw, 128)[0],
        run_time=struct.unpack_from("=Q", raw, 192)[0],
        run_count=struct.unpack_from("=Q", raw, 200)[0],
        verified_instructions=struct.unpack_from("=I", raw, 216)[0],
    )


def _program_map_ids(fd: Fd, count: int) -> tuple[int, ...]:
    if count == 0:
        return ()
    ids = Buffer(4 * count)
    request = bytearray(64)
    struct.pack_into("=I", request, 52, count)
    struct.pack_into("=Q", request, 56, ids.address)
    _get_info(fd, Buffer(bytes(request)), "read the program's map ids")
    return struct.unpack(f"={count}I", ids.content)


def map_(fd: Fd) -> MapInfo:
    """Describe the map behind ``fd``."""
    raw = _get_info(fd, Buffer(88), "read map info")
    kind, number, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", raw, 0)
    btf_id, key_type, value_type = struct.unpack_from("=3I", raw, 64)
    return MapInfo(
        id=number,
        type=names.name_of(names.MAP_TYPES, kind),
        name=_text(raw[24:40]),
        key_size=key_size,
        value_size=value_size,
        max_entries=max_entries,
        flags=flags,
        btf_id=btf_id,
        btf_key_type_id=key_type,
        btf_value_type_id=value_type,
    )


def link(fd: Fd) -> LinkInfo:
    """Describe the link behind ``fd``."""
    raw = _get_info(fd, Buffer(48), "read link info")
    kind, number, prog_id = struct.unpack_from("=3I", raw, 0)
    type_name = names.name_of(names.LINK_TYPES, kind)
    first, second = struct.unpack_from("=II", raw, 16)
    if type_name == "cgroup":
        cgroup_id, attach = struct.unpack_from("=QI", raw, 16)
        return LinkInfo(number, type_name, prog_id, _attach_name(attach), cgroup_id=cgroup_id)
    if type_name == "xdp":
        return LinkInfo(number, type_name, prog_id, "xdp", ifindex=first)
    if type_name in ("tcx", "netkit"):
        return LinkInfo(number, type_name, prog_id, _attach_name(second), ifindex=first)
    if type_name == "sockmap":
        return LinkInfo(number, type_name, prog_id, _attach_name(second), map_id=first)
    if type_name == "netns":
        return LinkInfo(number, type_name, prog_id, _attach_name(second), netns_ino=first)
    return LinkInfo(number, type_name, prog_id)


def _attach_name(number: int) -> str:
    return names.name_of(names.ATTACH_TYPES, number)


def _ids(cmd: Cmd, what: str) -> Iterator[int]:
    attr = bytearray(12)
    while True:
        try:
            call(cmd, attr, f"list {what}")
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        start: int = struct.unpack_from("=I", attr, 4)[0]
        yield start
        attr = bytearray(struct.pack("=III", start, 0, 0))


def program_ids() -> Iterator[int]:
    """The ids of all loaded programs, ascending."""
    return _ids(Cmd.PROG_GET_NEXT_ID, "programs")


def map_ids() -> Iterator[int]:
    """The ids of all maps, ascending."""
    return _ids(Cmd.MAP_GET_NEXT_ID, "maps")


def link_ids() -> Iterator[int]:
    """The ids of all links, ascending."""
    return _ids(Cmd.LINK_GET_NEXT_ID, "links")


def open_program(prog_id: int) -> Fd:
    """A descriptor of the program with this id. ENOENT when it is gone."""
    return Fd(bpf(Cmd.PROG_GET_FD_BY_ID, "III", prog_id, 0, 0, doing=f"open program {prog_id}"))


def open_map(map_id: int) -> Fd:
    """A descriptor of the map with this id. ENOENT when it is gone."""
    return Fd(bpf(Cmd.MAP_GET_FD_BY_ID, "III", map_id, 0, 0, doing=f"open map {map_id}"))


def open_link(link_id: int) -> Fd:
    """A descriptor of the link with this id. ENOENT when it is gone."""
    return Fd(bpf(Cmd.LINK_GET_FD_BY_ID, "III", link_id, 0, 0, doing=f"open link {link_id}"))


def links() -> Iterator[LinkInfo]:
    """Describe every link; one that is being made or goes away meanwhile is left out."""
    for link_id in link_ids():
        try:
            with open_link(link_id) as fd:
                yield link(fd)
        except OSError as error:
            # EAGAIN: it has an id and is not attached yet (bpf_link_by_id, kernel/bpf/syscall.c).
            if error.errno not in (errno.ENOENT, errno.EAGAIN):
                raise
