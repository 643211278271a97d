# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Types of sections that have no variables, which Linux before 5.12 refuses with all other types.

clang describes ``.rodata`` also when all in it is nameless, such as what a local structure is set
to. The kernel takes that since commit 13ca51d5eb35; one before answers EINVAL to the whole BTF,
and libbpf goes on without any. Layouts: ``struct btf_header`` and ``struct btf_type``.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from . import btf
from .syscall import Buffer, Cmd, Fd, bpf

_HEADER = "=HBB5I"
_PTR, _DATASEC = 2, 15  # BTF_KIND_*, include/uapi/linux/btf.h
_POINTER_TO_VOID = struct.pack("=III", 0, _PTR << 24, 0)  # as long as a section of no variables


def accepted() -> bool:
    """Whether the kernel takes a section without variables: it is asked to, which costs 20 us."""
    names = b"\0.rodata\0"
    types = struct.pack("=III", 1, _DATASEC << 24, 4)
    header = struct.pack(_HEADER, 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names))
    blob = Buffer(header + types + names)
    try:
        Fd(bpf(Cmd.BTF_LOAD, "QQII", blob.address, 0, blob.size, 0, doing="load BTF")).close()
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def without_empty(raw: bytes) -> bytes:
    """The same BTF with something harmless in the place of such sections; ids stay as they are.

    Raises ValueError when it is no BTF.
    """
    changed = bytearray(raw)
    for at in _empty(raw):
        changed[at : at + len(_POINTER_TO_VOID)] = _POINTER_TO_VOID
    return bytes(changed)


def _empty(raw: bytes) -> Iterator[int]:
    for at, kind, count in btf.walk(raw):
        if kind == "datasec" and not count:
            yield at
