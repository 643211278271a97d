# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A pinned ring buffer of somebody's programs, read with libbpf, which knows the memory's order."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..bpf import libbpf
from ..bpf.syscall import Fd

_Sample = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SYMBOLS: dict[str, Any] = {  # since libbpf 0.0.9
    "ring_buffer__new": ctypes.c_void_p,
    "ring_buffer__free": None,
    "ring_buffer__poll": ctypes.c_int,
    "ring_buffer__consume": ctypes.c_int,
}


class Ring:
    """An open ring buffer. What is read is gone for other readers."""

    def __init__(self, lib: Any, pointer: int) -> None:
        self._lib = lib
        self._pointer = ctypes.c_void_p(pointer)

    def poll(self, milliseconds: int) -> None:
        """Wait for records, at most so long, and hand them out. Raises OSError."""
        self._require(self._lib.ring_buffer__poll(self._pointer, ctypes.c_int(milliseconds)))

    def consume(self) -> None:
        """Hand out what is there. Raises OSError."""
        self._require(self._lib.ring_buffer__consume(self._pointer))

    def _require(self, result: int) -> None:
        if result < 0 and result != -4:  # EINTR: a signal, which is somebody else's to see
            raise OSError(-result, os.strerror(-result), "read a ring buffer")


@contextmanager
def opened(fd: Fd, take: Callable[[bytes], None]) -> Iterator[Ring]:
    """A ring buffer whose records are given to ``take``. Raises OSError."""
    lib = libbpf.library()
    for name, result in _SYMBOLS.items():
        getattr(lib, name).restype = result

    def hand_out(_context: int, data: int, size: int) -> int:
        take(ctypes.string_at(data, size))
        return 0

    sample = _Sample(hand_out)
    pointer = lib.ring_buffer__new(ctypes.c_int(fd.number), sample, None, None)
    if not pointer or pointer > (1 << 64) - 4096:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "open a ring buffer")
    try:
        yield Ring(lib, pointer)
    finally:
        lib.ring_buffer__free(ctypes.c_void_p(pointer))
