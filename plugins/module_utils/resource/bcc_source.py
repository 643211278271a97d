# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Programs in BCC dialect, compiled on the target by its BCC (Debian: python3-bpfcc).

The package of the name "bcc" on the Python index is something else. BCC is imported only here and
only when a source asks for it: it weighs 74 MB of memory and a tenth of a second.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from typing import Any

from ..bpf import names
from ..bpf.syscall import Fd
from .errors import Failure
from .object import Source, content_of

_LOAD_HEADERS = "/lib/modules/$(uname -r)/build"


def identity(source: Source) -> str:
    """SHA-256 over the source and the flags: BCC makes the object anew on each host."""
    digest = hashlib.sha256(content_of(source))
    for flag in source.cflags:
        digest.update(b"\0" + flag.encode())
    return digest.hexdigest()


def load(source: Source, programs: tuple[str, ...], type_: str) -> dict[str, Fd]:
    """Compile and load the functions as programs of one type. Raises Failure with what BCC said."""
    bcc = _import()
    number = names.number_of(names.PROG_TYPES, type_, names.PROG_TYPE_ALIASES)
    text = content_of(source).decode("utf-8", "replace")
    # BCC and its clang write their complaints to file descriptor 2, past Python.
    with Captured() as captured:
        try:
            module = bcc.BPF(text=text, cflags=list(source.cflags))
            return {
                name: Fd(os.dup(module.load_func(name.encode(), number).fd)) for name in programs
            }
        except Exception as error:  # noqa: BLE001 - BCC raises bare Exception for all it refuses
            said = captured.text() or str(error)
    tail = "\n".join(said.strip().splitlines()[-12:])
    raise Failure(
        f"BCC cannot compile or load {source.path}; it needs the headers of the running kernel in "
        f"{_LOAD_HEADERS} (Debian: linux-headers-$(uname -r)) or BCC_KERNEL_SOURCE:\n{tail}"
    )


def _import() -> Any:
    try:
        return importlib.import_module("bcc")
    except ImportError as error:
        raise Failure(
            "compiler: bcc needs BCC for the target's Python (Debian, Ubuntu: python3-bpfcc; "
            "Red Hat: python3-bcc); or use compiler: clang"
        ) from error


class Captured:
    """What is written to file descriptor 2 meanwhile."""

    def __enter__(self) -> Captured:
        self._file = os.memfd_create("bcc")
        self._kept = os.dup(2)
        os.dup2(self._file, 2)
        return self

    def text(self) -> str:
        """All that was written so far."""
        return os.pread(self._file, 1 << 20, 0).decode("utf-8", "replace")

    def __exit__(self, *_error: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        os.close(self._file)
