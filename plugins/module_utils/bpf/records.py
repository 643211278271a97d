# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Values made of others: arrays, structs, unions, fields in a row, per-CPU values, trie keys.

They are shapes as in ``values``, which says what encode and decode promise.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .values import BadValue, Shape


@dataclass(frozen=True)
class Sequence:
    """An array; what a shorter list leaves out is zero."""

    element: Shape
    count: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.element.size * self.count

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a list."""
        if not isinstance(value, list):
            raise BadValue(f"{where}: {value!r} is no list of at most {self.count}")
        if len(value) > self.count:
            raise BadValue(f"{where}: {len(value)} elements do not fit, at most {self.count} do")
        parts = [self.element.encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return b"".join(parts).ljust(self.size, b"\0")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """A list, without the zeros at its end that ``like`` has not either."""
        models = like if isinstance(like, list) else []
        parts = _cut(raw, self.element.size)
        while len(parts) > len(models) and not any(parts[-1]):
            parts.pop()
        last = models[-1] if models else None
        return [
            self.element.decode(part, models[index] if index < len(models) else last)
            for index, part in enumerate(parts)
        ]


def _cut(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw), size)] if size else []


@dataclass(frozen=True)
class Field:
    """A member: where it lies, in bits from the start of its struct, and how many bits it has."""

    name: str
    shape: Shape
    bit_offset: int
    bits: int
    signed: bool = False  # of a bit field: it keeps its sign in the bytes of its type


@dataclass(frozen=True)
class Record:
    """A struct or union. Members of anonymous ones within belong to it, as in C."""

    label: str
    size: int
    fields: tuple[Field, ...]

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a dict of members; a missing one, and padding, is zero."""
        if not isinstance(value, Mapping):
            raise BadValue(f"{where}: {value!r} is no dict of the members of {self.label}")
        known = {field.name: field for field in self.fields}
        unknown = [str(name) for name in value if name not in known]
        if unknown:
            raise BadValue(
                f"{where}: {self.label} has no member {', '.join(unknown)}; "
                f"its members are {', '.join(known)}"
            )
        memory = bytearray(self.size)
        written: list[Field] = []
        for name, item in value.items():
            field = known[name]
            other = next((one for one in written if _overlap(one, field)), None)
            if other is not None:
                raise BadValue(f"{where}: {name} and {other.name} share their bytes; give one")
            written.append(field)
            _put(memory, field, field.shape.encode(item, f"{where}.{name}"))
        return bytes(memory)

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """A dict of the members that ``like`` has and of others that are not zero.

        Of members that share bytes the widest is given.
        """
        models = like if isinstance(like, Mapping) else {}
        shown: list[Field] = []
        for wanted in (True, False):
            for field in sorted(self.fields, key=lambda field: -field.bits):
                if (field.name in models) is not wanted:
                    continue
                if any(_overlap(field, one) for one in shown):
                    continue
                if wanted or not models or any(_take(raw, field)):
                    shown.append(field)
        return {
            field.name: field.shape.decode(_take(raw, field), models.get(field.name))
            for field in self.fields
            if field in shown
        }


def _overlap(one: Field, other: Field) -> bool:
    return (
        one.bit_offset < other.bit_offset + other.bits
        and other.bit_offset < one.bit_offset + one.bits
    )


def _is_whole(field: Field) -> bool:
    return field.bit_offset % 8 == 0 and field.bits == 8 * field.shape.size


def _put(memory: bytearray, field: Field, raw: bytes) -> None:
    if _is_whole(field):
        at = field.bit_offset // 8
        memory[at : at + len(raw)] = raw
        return
    shift, mask = _bit_place(field, len(memory))
    value = int.from_bytes(raw, sys.byteorder) & mask
    whole = int.from_bytes(memory, sys.byteorder) & ~(mask << shift) | value << shift
    memory[:] = whole.to_bytes(len(memory), sys.byteorder)


def _take(raw: bytes, field: Field) -> bytes:
    if _is_whole(field):
        at = field.bit_offset // 8
        return raw[at : at + field.shape.size]
    shift, mask = _bit_place(field, len(raw))
    value = int.from_bytes(raw, sys.byteorder) >> shift & mask
    if field.signed and value >> field.bits - 1:
        value |= (1 << 8 * field.shape.size) - 1 & ~mask
    return value.to_bytes(field.shape.size, sys.byteorder)


def _bit_place(field: Field, size: int) -> tuple[int, int]:
    """Shift and mask of a bit field in its struct, read as one number of native byte order."""
    mask = (1 << field.bits) - 1
    if sys.byteorder == "little":
        return field.bit_offset, mask
    return 8 * size - field.bit_offset - field.bits, mask


@dataclass(frozen=True)
class Row:
    """Fields one after the other, without names or padding; None is a gap of zeros (``pad[N]``)."""

    fields: tuple[Shape, ...]
    gaps: tuple[bool, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(shape.size for shape in self.fields)

    def _named(self) -> int:
        return self.gaps.count(False)

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a list with a value for each field; of a single field its value alone."""
        values = [value] if self._named() == 1 else value
        if not isinstance(values, list) or len(values) != self._named():
            raise BadValue(f"{where}: {value!r} is no list of {self._named()} values")
        rest = iter(enumerate(values))
        raw = b""
        for shape, gap in zip(self.fields, self.gaps):
            if gap:
                raw += bytes(shape.size)
                continue
            index, item = next(rest)
            place = where if self._named() == 1 else f"{where}[{index}]"
            raw += shape.encode(item, place)
        return raw

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """A list, or a single field's value."""
        single = self._named() == 1
        models = iter([like] if single else like if isinstance(like, list) else [])
        found: list[Any] = []
        at = 0
        for shape, gap in zip(self.fields, self.gaps):
            if not gap:
                found.append(shape.decode(raw[at : at + shape.size], next(models, None)))
            at += shape.size
        return found[0] if single else found


@dataclass(frozen=True)
class PerCpu:
    """The value of a per-CPU map: one for each possible CPU, each in a multiple of eight bytes."""

    value: Shape
    cpus: int

    @property
    def size(self) -> int:
        """Bytes of all values together."""
        return self._stride() * self.cpus

    def _stride(self) -> int:
        return (self.value.size + 7) // 8 * 8

    def encode(self, value: Any, where: str) -> bytes:
        """Takes one value for all CPUs, or a list with one for each."""
        if isinstance(value, list):
            try:
                return self._each(value, where)
            except BadValue as error:
                try:
                    return self._all(value, where)
                except BadValue:
                    raise error from None
        return self._all(value, where)

    def _all(self, value: Any, where: str) -> bytes:
        return self.value.encode(value, where).ljust(self._stride(), b"\0") * self.cpus

    def _each(self, value: list[Any], where: str) -> bytes:
        if len(value) != self.cpus:
            raise BadValue(
                f"{where}: {len(value)} values for {self.cpus} possible CPUs; "
                "give one value for all, or one for each"
            )
        parts = [self.value.encode(item, f"{where}[cpu {cpu}]") for cpu, item in enumerate(value)]
        return b"".join(part.ljust(self._stride(), b"\0") for part in parts)

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """One value when all CPUs have the same, else a list."""
        parts = [part[: self.value.size] for part in _cut(raw, self._stride())]
        models = like if isinstance(like, list) and len(like) == self.cpus else [like] * self.cpus
        if not isinstance(like, list) and len(set(parts)) == 1:
            return self.value.decode(parts[0], like)
        return [self.value.decode(part, model) for part, model in zip(parts, models)]


@dataclass(frozen=True)
class PrefixKey:
    """The key of an LPM trie: ``struct bpf_lpm_trie_key``, a native u32 and the bits it counts.

    ``data`` is the shape of what follows the length when that is one value; then the key may be
    written as ``value/length``. An IPv4 prefix in sixteen bytes is mapped: 96 bits longer.
    """

    key: Shape
    data: Shape | None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.key.size

    def encode(self, value: Any, where: str) -> bytes:
        """Takes ``value/length``, ``value`` (all of its bits), or what the key's type takes."""
        if self.data is not None and isinstance(value, (str, int)):
            raw = self._encode_text(str(value), self.data, where)
        else:
            raw = self.key.encode(value, where)
        length = self._length(raw)
        most = 8 * (self.size - 4)
        if length > most:
            raise BadValue(f"{where}: a prefix of {length} bits, but the key has {most}")
        if self.canonical(raw) != raw:
            spelt = self.decode(self.canonical(raw), value)
            raise BadValue(
                f"{where}: {value!r} has bits set beyond its prefix; did you mean {spelt}?"
            )
        return raw

    def _encode_text(self, text: str, data: Shape, where: str) -> bytes:
        before, slash, after = text.partition("/")
        bits = data.encode(before, where)
        mapped = len(bits) == 16 and ":" not in before and "." in before
        length = 8 * len(bits)
        if slash:
            if not (after.isascii() and after.isdigit()):
                raise BadValue(f"{where}: {after!r} is no prefix length")
            length = int(after) + (96 if mapped else 0)
        if length > 8 * len(bits):
            most = 8 * len(bits) - (96 if mapped else 0)
            raise BadValue(f"{where}: /{after} is longer than the {most} bits there are")
        return (struct.pack("=I", length) + bits).ljust(self.size, b"\0")

    @staticmethod
    def _length(raw: bytes) -> int:
        length: int = struct.unpack_from("=I", raw, 0)[0]
        return length

    def canonical(self, raw: bytes) -> bytes:
        """The key with the bits beyond its prefix zero: to the kernel it is the same key."""
        bits = 8 * (len(raw) - 4)
        free = max(bits - self._length(raw), 0)
        data = int.from_bytes(raw[4:], "big") >> free << free
        return raw[:4] + data.to_bytes(len(raw) - 4, "big")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """``value/length`` where the key may be written so, else what its type gives."""
        if self.data is None or not (like is None or isinstance(like, (str, int))):
            return self.key.decode(raw, like)
        model = like.partition("/")[0] if isinstance(like, str) else None
        text = str(self.data.decode(raw[4 : 4 + self.data.size], model))
        length = self._length(raw)
        if self.data.size == 16 and "." in text and ":" not in text:
            if length < 96:
                text = f"::ffff:{text}"
            else:
                length -= 96
        return f"{text}/{length}"
