# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Records as BCC types them, turned into data that JSON can say."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

Readers = Mapping[str, Callable[[Any], Any]]

_PADDING = "__pad_"


def plain(value: Any, readers: Readers, name: str = "") -> Any:
    """A value of a ctypes type as numbers, text, lists and dictionaries.

    Arrays of char are text up to their first zero, arrays of unsigned char are hexadecimal text.
    ``readers`` turn what the fields of their names hold into something else.
    """
    found = _plain(value, readers)
    return readers[name](found) if name in readers else found


def _plain(value: Any, readers: Readers) -> Any:
    if isinstance(value, (ctypes.Structure, ctypes.Union)):
        fields = [field[0] for field in value._fields_ if not field[0].startswith(_PADDING)]
        return {field: plain(getattr(value, field), readers, field) for field in fields}
    if isinstance(value, bytes):
        return value.split(b"\0", 1)[0].decode("utf-8", "replace")
    if isinstance(value, ctypes.Array):
        if value._type_ is ctypes.c_char:
            return _plain(bytes(value), readers)
        if value._type_ is ctypes.c_ubyte:
            return bytes(value).hex()
        return [_plain(item, readers) for item in value]
    if isinstance(value, ctypes._SimpleCData):
        return _plain(value.value, readers)
    return value


def is_zero(value: Any) -> bool:
    """Whether a value of a ctypes type is nothing but zero bytes."""
    return not any(bytes(value))


def total(values: Any, readers: Readers) -> Any:
    """One value for each CPU: their sum when they are numbers, else all of them."""
    found = [plain(value, readers) for value in values]
    return sum(found) if all(isinstance(value, int) for value in found) else found
