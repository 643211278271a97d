# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""bpf(2) and the descriptors it returns: the one place that makes the system call.

Attributes are packed with ``struct`` in native byte order, as ``union bpf_attr`` of
include/uapi/linux/bpf.h lays them out; the kernel accepts a shorter union and reads the rest as
zero. Every failure is an OSError with the kernel's errno.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import os
import platform
import resource
import struct
from types import TracebackType
from typing import Any

# __NR_bpf, asm/unistd.h of each architecture.
_NR_BPF = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "s390x": 351,
}

_libc = ctypes.CDLL(None, use_errno=True)


class Cmd(enum.IntEnum):
    """``enum bpf_cmd``, include/uapi/linux/bpf.h."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_ATTACH = 8
    PROG_DETACH = 9
    PROG_TEST_RUN = 10
    PROG_GET_NEXT_ID = 11
    MAP_GET_NEXT_ID = 12
    PROG_GET_FD_BY_ID = 13
    MAP_GET_FD_BY_ID = 14
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_FREEZE = 22
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    LINK_UPDATE = 29
    LINK_GET_FD_BY_ID = 30
    LINK_GET_NEXT_ID = 31
    LINK_DETACH = 34
    PROG_BIND_MAP = 35


_CHARGED = (Cmd.MAP_CREATE, Cmd.PROG_LOAD)


class Fd:
    """An owned file descriptor, closed when its context ends."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __enter__(self) -> Fd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; closing it again does nothing."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def fileno(self) -> int:
        """The descriptor's number, for ``os`` and ``fcntl`` functions."""
        return self.number


class Buffer:
    """Memory that the kernel may read or fill, with its address for an attribute."""

    def __init__(self, content: bytes | int) -> None:
        self._memory: Any = (
            ctypes.create_string_buffer(content)
            if isinstance(content, int)
            else ctypes.create_string_buffer(content, max(len(content), 1))
        )
        self.size = content if isinstance(content, int) else len(content)
        self.address = ctypes.addressof(self._memory)

    @property
    def content(self) -> bytes:
        """A copy of the memory as it is now."""
        return bytes(self._memory.raw[: self.size])


def lift_memlock() -> None:
    """Let this process lock any amount of memory.

    Before Linux 5.11 maps and programs count as locked memory, of which root may have 64 KiB by
    default; libbpf lifts the limit by itself only since 0.7. Without CAP_SYS_RESOURCE it is lifted
    as far as it goes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in (resource.RLIM_INFINITY, hard):
        if soft in (limit, resource.RLIM_INFINITY):
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
            return


def bpf(cmd: Cmd, layout: str, *values: Any, doing: str) -> int:
    """Call bpf(2) with ``values`` packed as ``layout`` (native byte order, no implicit padding).

    ``doing`` names the attempt and becomes the OSError's filename field. Returns the call's result:
    a descriptor, a count or zero.
    """
    return call(cmd, bytearray(struct.pack("=" + layout, *values)), doing=doing)


def call(cmd: Cmd, attr: bytearray, doing: str) -> int:
    """Call bpf(2) with ``attr``, which holds the kernel's answer afterwards."""
    number = _NR_BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"no bpf(2) number known for {platform.machine()}", doing)
    if cmd in _CHARGED:
        lift_memlock()
    memory = (ctypes.c_char * len(attr)).from_buffer(attr)
    result: int = _libc.syscall(
        ctypes.c_long(number),
        ctypes.c_int(int(cmd)),
        ctypes.byref(memory),
        ctypes.c_uint(len(attr)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), doing)
    return result
