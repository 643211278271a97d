# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the running kernel can do, found out by trying: a version says little of a vendor's kernel.

Nothing is attached and nothing is left behind. Most probes ask for something with a descriptor
that does not exist: a kernel that knows the command looks at the descriptor (EBADF, ENODEV), one
that does not refuses the command (EINVAL).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from . import libbpf, names
from .syscall import Buffer, Cmd, Fd, bpf

VMLINUX_BTF = "/sys/kernel/btf/vmlinux"

_NO_FD = 0xFFFFFFFF
_NO_IFINDEX = 0x7FFFFFFF

_F_NO_PREALLOC, _F_MMAPABLE = 1 << 0, 1 << 10  # BPF_F_*, include/uapi/linux/bpf.h
_F_SLEEPABLE = 1 << 4  # BPF_F_SLEEPABLE
_F_XDP_HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS
_KTIME_GET_COARSE_NS = 160  # enum bpf_func_id; new in 5.11, as memcg accounting is

# struct bpf_insn: u8 code, u8 registers, s16 offset, s32 immediate.
_RETURN = struct.pack("=BBhi", 0x95, 0, 0, 0)


def _set_r0(value: int) -> bytes:
    return struct.pack("=BBhi", 0xB7, 0, 0, value)


def _call_helper(number: int) -> bytes:
    return struct.pack("=BBhi", 0x85, 0, 0, number)


@dataclass(frozen=True)
class Feature:
    """One ability. ``since`` is the mainline kernel that has it; a vendor may have it earlier."""

    supported: bool
    since: str


# What the collection uses, and the mainline kernel that has it.
SINCE = {
    "cgroup_link": "5.7",
    "xdp_link": "5.9",
    "ringbuf": "5.8",
    "bind_map": "5.10",
    "memcg_accounting": "5.11",
    "sockmap_query": "5.18",
    "tcx": "6.6",
    "sockmap_link": "6.10",
    "sockmap_fionread": "7.0, 6.18 and 6.12 as of 2026",
    "btf": "5.4, CONFIG_DEBUG_INFO_BTF",
}

# Mainline versions; a type that is not listed is older than any kernel supported here.
_PROG_SINCE = {
    "ext": "5.6",
    "lsm": "5.7",
    "sk_lookup": "5.9",
    "struct_ops": "5.6",
    "syscall": "5.14",
    "netfilter": "6.4",
}
_MAP_SINCE = {
    "struct_ops": "5.6",
    "ringbuf": "5.8",
    "inode_storage": "5.10",
    "task_storage": "5.11",
    "bloom_filter": "5.16",
    "user_ringbuf": "6.1",
    "cgrp_storage": "6.2",
    "arena": "6.9",
}


def features() -> dict[str, Feature]:
    """Each feature that the collection uses. Takes some milliseconds at most."""
    probes = {
        "cgroup_link": cgroup_link,
        "xdp_link": xdp_link,
        "ringbuf": ringbuf,
        "bind_map": bind_map,
        "memcg_accounting": memcg_accounting,
        "sockmap_query": sockmap_query,
        "tcx": tcx,
        "sockmap_link": sockmap_link,
        "sockmap_fionread": sockmap_fionread,
        "btf": btf,
    }
    return {name: Feature(probe(), SINCE[name]) for name, probe in probes.items()}


def cgroup_link() -> bool:
    """Whether programs can be attached to cgroups with links."""
    return _link_known("cgroup_inet_ingress", _NO_FD)


def xdp_link() -> bool:
    """Whether XDP programs can be attached with links."""
    return _link_known("xdp", _NO_FD)


def sockmap_link() -> bool:
    """Whether programs can be attached to sockmaps with links."""
    if not prog_type("sk_msg"):
        return False
    with _load("sk_msg", _set_r0(1) + _RETURN) as program:
        return _link_known("sk_msg_verdict", program.number)


def sockmap_fionread() -> bool:
    """Whether FIONREAD of a socket in a sockmap counts redirected bytes; 0 otherwise.

    Kernel commit 929e30f93125 brought it, with a member of struct sk_psock that has a name of its
    own among all names of the kernel's types.
    """
    try:
        with open(VMLINUX_BTF, "rb") as file:
            return b"\0msg_tot_len\0" in file.read()
    except OSError:
        return False


def _link_known(attach_type: str, program: int) -> bool:
    """Ask for a link on a target that is none. EPERM is for the caller to see."""
    number = names.number_of(names.ATTACH_TYPES, attach_type)
    return _knows(Cmd.LINK_CREATE, "IIII", program, _NO_FD, number, 0)


def bind_map() -> bool:
    """Whether a map can be bound to a loaded program, which provenance needs."""
    return _knows(Cmd.PROG_BIND_MAP, "III", _NO_FD, _NO_FD, 0)


def sockmap_query() -> bool:
    """Whether the kernel tells what is attached to a sockmap."""
    return _query_known("sk_msg_verdict", _NO_FD)


def tcx() -> bool:
    """Whether tc programs can be attached without a qdisc (TCX)."""
    return _query_known("tcx_ingress", _NO_IFINDEX)


def _query_known(attach_type: str, target: int) -> bool:
    number = names.number_of(names.ATTACH_TYPES, attach_type)
    return _knows(Cmd.PROG_QUERY, "IIIIQIIQQQQ", target, number, *([0] * 9))


def _knows(cmd: Cmd, layout: str, *values: int) -> bool:
    try:
        bpf(cmd, layout, *values, doing="probe a feature")
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENODEV):
            return True
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def ringbuf() -> bool:
    """Whether there are ring buffers."""
    return map_type("ringbuf")


def memcg_accounting() -> bool:
    """Whether BPF memory is charged to the memory cgroup, so that RLIMIT_MEMLOCK does not matter.

    The same release brought the helper bpf_ktime_get_coarse_ns, which is what is tried.
    """
    return _loads("socket_filter", _call_helper(_KTIME_GET_COARSE_NS) + _RETURN)


def btf() -> bool:
    """Whether the kernel describes its own types, which CO-RE programs need."""
    return os.path.exists(VMLINUX_BTF)


# What a trivial program of the type needs: expected attach type, flags, return value.
_PROG_NEEDS: Mapping[str, tuple[str, int, int]] = {
    "cgroup_sock_addr": ("cgroup_inet4_connect", 0, 1),
    "cgroup_sockopt": ("cgroup_getsockopt", 0, 0),
    "sk_lookup": ("sk_lookup", 0, 1),
    "netfilter": ("netfilter", 0, 0),
    "syscall": ("", _F_SLEEPABLE, 0),
}
# These attach to a function of the kernel or of a program, and cannot be loaded without one.
_PROG_UNTRIED = ("unspec", "tracing", "struct_ops", "ext", "lsm")


def prog_types() -> dict[str, Feature]:
    """Each program type that can be tried, by loading a program of two instructions."""
    return {
        name: Feature(prog_type(name), _PROG_SINCE.get(name, ""))
        for name in names.PROG_TYPES
        if name not in _PROG_UNTRIED
    }


def prog_type(name: str) -> bool:
    """Whether the kernel loads programs of this type."""
    returns = _PROG_NEEDS.get(name, ("", 0, 0))[2]
    return _loads(name, _set_r0(returns) + _RETURN)


def xdp_frags() -> bool:
    """Whether XDP programs may take packets in several buffers (Linux 5.18)."""
    return _loads("xdp", _set_r0(0) + _RETURN, _F_XDP_HAS_FRAGS)


def _loads(kind: str, instructions: bytes, more_flags: int = 0) -> bool:
    try:
        _load(kind, instructions, more_flags).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            raise
        return False
    return True


def _load(kind: str, instructions: bytes, more_flags: int = 0) -> Fd:
    attach, flags, _returns = _PROG_NEEDS.get(kind, ("", 0, 0))
    code, text = Buffer(instructions), Buffer(b"GPL\0")
    attr = struct.pack(
        "=IIQQIIQIi16sII",
        names.number_of(names.PROG_TYPES, kind),
        len(instructions) // 8,
        code.address,
        text.address,
        *(0, 0, 0, 0),  # log_level, log_size, log_buf, kern_version
        flags | more_flags,
        b"fleet_probe",
        0,  # prog_ifindex
        names.number_of(names.ATTACH_TYPES, attach) if attach else 0,
    )
    return Fd(bpf(Cmd.PROG_LOAD, f"{len(attr)}s", attr, doing=f"load a {kind} program"))


@dataclass(frozen=True)
class _Shape:
    """A map that the type accepts. Sizes in bytes; ``btf``: key and value need a description."""

    key: int = 4
    value: int = 4
    entries: int = 1
    flags: int = 0
    btf: bool = False
    inner: bool = False


_STORAGE = _Shape(4, 4, 0, _F_NO_PREALLOC, btf=True)
_MAP_SHAPES: Mapping[str, _Shape] = {
    "stack_trace": _Shape(4, 8),
    "lpm_trie": _Shape(8, 4, 1, _F_NO_PREALLOC),
    "array_of_maps": _Shape(inner=True),
    "hash_of_maps": _Shape(inner=True),
    "cgroup_storage": _Shape(16, 4, 0),
    "percpu_cgroup_storage": _Shape(16, 4, 0),
    "reuseport_sockarray": _Shape(4, 8),
    "queue": _Shape(0, 4),
    "stack": _Shape(0, 4),
    "bloom_filter": _Shape(0, 4),
    "ringbuf": _Shape(0, 0, mmap.PAGESIZE),
    "user_ringbuf": _Shape(0, 0, mmap.PAGESIZE),
    "arena": _Shape(0, 0, 1, _F_MMAPABLE),
    "sk_storage": _STORAGE,
    "inode_storage": _STORAGE,
    "task_storage": _STORAGE,
    "cgrp_storage": _STORAGE,
}
# A prog_array, which every kernel has, must not be tried: when another process opens it by its id
# while it goes away, its clearing is scheduled twice and done once, and the map stays for ever
# (prog_array_map_clear, kernel/bpf/arraymap.c; seen on 6.18).
_MAP_UNTRIED = ("unspec", "struct_ops", "prog_array")


def map_types() -> dict[str, Feature]:
    """Each map type that can be tried, by making a map of one entry."""
    return {
        name: Feature(map_type(name), _MAP_SINCE.get(name, ""))
        for name in names.MAP_TYPES
        if name not in _MAP_UNTRIED
    }


def map_type(name: str) -> bool:
    """Whether the kernel makes maps of this type."""
    shape = _MAP_SHAPES.get(name, _Shape())
    try:
        with _helpers(shape) as (inner, description):
            _create(name, shape, inner, description).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            raise
        return False
    return True


@contextlib.contextmanager
def _helpers(shape: _Shape) -> Iterator[tuple[int, int]]:
    """Descriptors of an inner map and of BTF, 0 for what the shape does not need."""
    with contextlib.ExitStack() as stack:
        inner = stack.enter_context(_create("array", _Shape(), 0, 0)) if shape.inner else None
        description = stack.enter_context(_int_btf()) if shape.btf else None
        yield inner.number if inner else 0, description.number if description else 0


def _create(name: str, shape: _Shape, inner: int, description: int) -> Fd:
    type_id = 1 if shape.btf else 0
    return Fd(
        bpf(
            Cmd.MAP_CREATE,
            "7I16s4I",
            names.number_of(names.MAP_TYPES, name),
            *(shape.key, shape.value, shape.entries, shape.flags, inner, 0),
            b"fleet_probe",
            *(0, description, type_id, type_id),
            doing=f"create a {name} map",
        )
    )


def _int_btf() -> Fd:
    """BTF with one type, a signed 32-bit int with id 1 (struct btf_header and btf_type)."""
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    blob = Buffer(header + types + strings)
    return Fd(bpf(Cmd.BTF_LOAD, "QQII", blob.address, 0, blob.size, 0, doing="load BTF"))


@dataclass(frozen=True)
class Libbpf:
    """The library that loads objects. ``version`` is "" when it is missing or before 0.6."""

    found: bool
    version: str
    problem: str


def libbpf_found() -> Libbpf:
    """Find libbpf as the loader does, with what is wrong with it."""
    try:
        library = libbpf.library()
    except libbpf.Unavailable as error:
        return Libbpf(False, "", f"{error.strerror} ({error.filename})")
    if not hasattr(library, "libbpf_version_string"):
        return Libbpf(True, "", "")
    text = library.libbpf_version_string
    text.restype = ctypes.c_char_p
    version: bytes = text()
    return Libbpf(True, version.decode().lstrip("v"), "")
