# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Single values as people write them, and the bytes that a map holds.

Each shape encodes what was written into exactly ``size`` bytes, and decodes bytes into the same
terms: ``like`` is a value that the operator wrote for this place (or None), and decides between
equally good spellings, such as a number and an address. Encoding raises BadValue, which names the
place in the declaration.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

_NUMBER = re.compile(r"[+-]?(0|[1-9][0-9]*|0[xX][0-9a-fA-F]+)")
_HEX = re.compile(r"[0-9a-fA-F]*")
_MAPPED = bytes(10) + b"\xff\xff"  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class BadValue(ValueError):
    """A declared value that does not fit its place. The text names both."""


class Shape(Protocol):
    """How bytes are written down."""

    @property
    def size(self) -> int:
        """Bytes."""

    def encode(self, value: Any, where: str) -> bytes:
        """The bytes of ``value``. Raises BadValue, naming ``where`` it was written."""

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """What ``encode`` would take for these bytes, in the spelling of ``like``."""


def _integer(value: Any, where: str, label: str) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value.strip(), 0)
    raise BadValue(f"{where}: {value!r} is no number for {label}; write it decimal or as 0x…")


@dataclass(frozen=True)
class Number:
    """An integer. ``order`` is its byte order in memory, ``bits`` its width in a bit field.

    One that holds an IPv4 address (``__be32``) takes it dotted, too.
    """

    size: int
    signed: bool = False
    order: str = sys.byteorder
    label: str = "number"
    address: bool = False
    bits: int = 0

    def encode(self, value: Any, where: str) -> bytes:
        """Takes an int, or its decimal or 0x spelling; a byte takes a boolean, too."""
        if self.address and isinstance(value, str) and value.count(".") == 3:
            return _address(value, 4, where)
        if isinstance(value, bool) and (self.size != 1 or self.signed):
            raise BadValue(f"{where}: {value} is a boolean, {self.label} takes a number")
        if isinstance(value, str) and value.count(".") == 3 and self.size == 4:
            raise BadValue(
                f"{where}: {self.label} says nothing of byte order, so {value!r} has no one "
                "meaning; use __be32 or struct in_addr in the program, or name ipv4 in the format"
            )
        number = _integer(value, where, self.label)
        bits = self.bits or 8 * self.size
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)
        if not low <= number <= high:
            raise BadValue(f"{where}: {number} is out of range for {self.label} ({low} to {high})")
        return _to_bytes(number, self.size, self.order, self.signed)

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """An int, dotted where it may be an address; 0x or a boolean where ``like`` is."""
        number = _from_bytes(raw, self.order, self.signed)
        if isinstance(like, bool) and number in (0, 1):
            return bool(number)
        if self.address and (like is None or "." in str(like)):
            return str(ipaddress.IPv4Address(raw))
        if isinstance(like, str) and like.strip().lower().startswith("0x") and number >= 0:
            return hex(number)
        return number


def _to_bytes(number: int, size: int, order: str, signed: bool = False) -> bytes:
    return number.to_bytes(size, "big" if order == "big" else "little", signed=signed)


def _from_bytes(raw: bytes, order: str, signed: bool = False) -> int:
    return int.from_bytes(raw, "big" if order == "big" else "little", signed=signed)


@dataclass(frozen=True)
class Boolean:
    """A ``_Bool``."""

    size: int

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a boolean, 0 or 1, or the words that YAML has for them."""
        if isinstance(value, str):
            value = _WORDS.get(value.strip().lower(), {"0": 0, "1": 1}.get(value.strip(), value))
        if isinstance(value, int) and value in (0, 1):
            return _to_bytes(int(value), self.size, sys.byteorder)
        raise BadValue(f"{where}: {value!r} is no boolean")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """A boolean; 0 or 1 where ``like`` is a number."""
        number = _from_bytes(raw, sys.byteorder)
        if number > 1 or (isinstance(like, int) and not isinstance(like, bool)):
            return number
        return bool(number)


@dataclass(frozen=True)
class Enumeration:
    """An enum: names, or numbers."""

    number: Number
    names: Mapping[str, int] = field(hash=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.number.size

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a name of the enum, or any number that fits."""
        if isinstance(value, str) and value in self.names:
            number = self.names[value] & (1 << 8 * self.size) - 1  # two's complement
            return _to_bytes(number, self.size, sys.byteorder)
        if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
            names = ", ".join(self.names)
            raise BadValue(f"{where}: {value!r} is not in {self.number.label}, which has {names}")
        return self.number.encode(value, where)

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """A name; the number where ``like`` is one or the enum has no name for it."""
        number = self.number.decode(raw)
        if isinstance(like, int) or (isinstance(like, str) and _NUMBER.fullmatch(like.strip())):
            return number
        return next((name for name, value in self.names.items() if value == number), number)


@dataclass(frozen=True)
class Text:
    """An array of ``char``: UTF-8, ended by a zero byte, the rest zero."""

    size: int

    def encode(self, value: Any, where: str) -> bytes:
        """Takes a string that leaves room for its final zero, or a list of bytes."""
        if isinstance(value, list):
            return _byte_list(value, self.size, where)
        if not isinstance(value, str):
            raise BadValue(f"{where}: {value!r} is no string; quote it")
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise BadValue(f"{where}: {value!r} is no UTF-8 text") from error
        if b"\0" in raw or len(raw) >= self.size:
            raise BadValue(f"{where}: {value!r} does not fit, at most {self.size - 1} bytes do")
        return raw.ljust(self.size, b"\0")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """The string before the first zero; a list where ``like`` is one."""
        if isinstance(like, list):
            return list(raw)
        return raw.split(b"\0", 1)[0].decode(errors="backslashreplace")


def _byte_list(value: list[Any], size: int, where: str) -> bytes:
    if len(value) > size:
        raise BadValue(f"{where}: {len(value)} bytes do not fit, at most {size} do")
    byte = Number(1, label="a byte")
    parts = [byte.encode(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return b"".join(parts).ljust(size, b"\0")


@dataclass(frozen=True)
class Bytes:
    """Bytes without further type: hex. Six may be a MAC, four or sixteen an address."""

    size: int
    mac: bool = False  # spell six bytes as a MAC when nobody wrote them otherwise

    def encode(self, value: Any, where: str) -> bytes:
        """Takes hex (``0a00``, ``0a 00``, ``0a:00``, ``0x0a 0x00``), an address, a byte list."""
        if isinstance(value, list):
            return _byte_list(value, self.size, where)
        if not isinstance(value, str):
            raise BadValue(
                f"{where}: {value!r} is no hex string of {self.size} bytes; quote it, "
                "or name its type in the format option"
            )
        if self.size in (4, 16) and _is_address(value):
            return _address(value, self.size, where)
        digits = _hex_digits(value)
        if _HEX.fullmatch(digits) and len(digits) == 2 * self.size:
            return bytes.fromhex(digits)
        what = "a MAC or " if self.size == 6 else "an address or " if self.size in (4, 16) else ""
        raise BadValue(f"{where}: {value!r} is not {what}{self.size} bytes in hex")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """Hex with spaces; a MAC, an address or a list where ``like`` is one."""
        if isinstance(like, list):
            return list(raw)
        if isinstance(like, str) and self.size in (4, 16) and _is_address(like):
            return _address_text(raw, like)
        if self.size == 6 and (self.mac if like is None else ":" in str(like)):
            return raw.hex(":")
        return raw.hex(" ")


def _hex_digits(text: str) -> str:
    parts = re.split(r"[\s:-]+", text.strip())
    return "".join(part[2:] if part[:2] in ("0x", "0X") else part for part in parts)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip())
    except ValueError:
        return False
    return True


def _address(text: str, size: int, where: str) -> bytes:
    try:
        found = ipaddress.ip_address(text.strip())
    except ValueError as error:
        raise BadValue(f"{where}: {text!r} is no IP address") from error
    if "%" in text:
        raise BadValue(f"{where}: {text!r} has a zone, which the bytes of an address do not hold")
    if size == 4 and found.version == 6:
        raise BadValue(f"{where}: {text!r} is an IPv6 address where an IPv4 address belongs")
    return _MAPPED + found.packed if size > len(found.packed) else found.packed


def _address_text(raw: bytes, like: Any = None) -> str:
    if len(raw) == 4:
        return str(ipaddress.IPv4Address(raw))
    if raw[:12] != _MAPPED:
        return str(ipaddress.IPv6Address(raw))
    dotted = str(ipaddress.IPv4Address(raw[12:]))
    return f"::ffff:{dotted}" if isinstance(like, str) and ":" in like else dotted


@dataclass(frozen=True)
class Address:
    """An address in network byte order: four bytes, or sixteen, where IPv4 is mapped (RFC 4291).

    ``members`` is the C type behind it, for who writes it member by member.
    """

    size: int
    members: Shape | None = None

    def encode(self, value: Any, where: str) -> bytes:
        """Takes an address, or what its C type takes."""
        if isinstance(value, str):
            return _address(value, self.size, where)
        if self.members is not None and isinstance(value, (list, Mapping)):
            return self.members.encode(value, where)
        raise BadValue(f"{where}: {value!r} is no IP address; quote it")

    def decode(self, raw: bytes, like: Any = None) -> Any:
        """An address, a mapped one as IPv4 unless ``like`` is spelt in IPv6."""
        if self.members is not None and isinstance(like, (list, Mapping)):
            return self.members.decode(raw, like)
        return _address_text(raw, like)
