# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Two packets beside each other, for people."""

from __future__ import annotations

from collections.abc import Iterator

_ROW = 16


def hexdiff(expected: bytes, got: bytes, start: int = 0) -> Iterator[str]:
    """The rows of 16 bytes that differ from byte ``start`` on, with marks below the bytes."""
    same = 0
    for at in range(0, max(len(expected), len(got)), _ROW):
        wanted, found = expected[at : at + _ROW], got[at : at + _ROW]
        marks = _marks(wanted, found, start - at)
        if not marks:
            same += 1
            continue
        if same:
            yield f"        ({same} equal row{'s' if same > 1 else ''})"
        same = 0
        yield f"  {at:04x}  expected {wanted.hex(' ')}".rstrip()
        yield f"        got      {found.hex(' ')}".rstrip()
        yield f"                 {marks}"
    if same:
        yield f"        ({same} equal row{'s' if same > 1 else ''})"


def _marks(wanted: bytes, found: bytes, start: int) -> str:
    width = max(len(wanted), len(found))
    differs = (at >= start and wanted[at : at + 1] != found[at : at + 1] for at in range(width))
    return " ".join("^^" if different else "  " for different in differs).rstrip()
