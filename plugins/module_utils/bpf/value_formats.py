# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The words that describe keys and values of a map without BTF, such as ``be16 pad[2] ipv4``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .records import Row
from .values import Address, BadValue, Bytes, Number, Shape, Text

WORDS = "u8 u16 u32 u64 s8 s16 s32 s64 be16 be32 be64 ipv4 ipv6 mac string[N] hex[N] pad[N]"

_SIZED = re.compile(r"(string|hex|pad)\[([1-9][0-9]{0,6})\]")
_NUMBER = re.compile(r"(u|s|be)(8|16|32|64)")


def parse(words: str | Iterable[str], where: str) -> Row:
    """The shape that the words name, in their order and without padding of its own.

    u and s are in native byte order, be, ipv4 and ipv6 in network byte order. Raises BadValue.
    """
    text = words if isinstance(words, str) else " ".join(str(word) for word in words)
    found = [word for word in re.split(r"[\s,]+", text) if word]
    if not found:
        raise BadValue(f"{where} is empty; the words are {WORDS}")
    gaps = tuple(word.startswith("pad[") for word in found)
    if all(gaps):
        raise BadValue(f"{where} has nothing but padding")
    return Row(tuple(_shape(word, where) for word in found), gaps)


def _shape(word: str, where: str) -> Shape:
    if word in ("ipv4", "ipv6"):
        return Address(4 if word == "ipv4" else 16)
    if word == "mac":
        return Bytes(6, mac=True)
    sized = _SIZED.fullmatch(word)
    if sized:
        size = int(sized.group(2))
        return Text(size) if sized.group(1) == "string" else Bytes(size)
    number = _NUMBER.fullmatch(word)
    if number is None or word == "be8":
        raise BadValue(f"{where}: {word!r} is none of {WORDS}")
    size = int(number.group(2)) // 8
    if number.group(1) == "be":
        return Number(size, order="big", label=word, address=size == 4)
    return Number(size, number.group(1) == "s", label=word)
