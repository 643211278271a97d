# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What numbers and bytes of a record stand for, where their C type does not say it."""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from ..resource.errors import Failure

TRACEFS = "/sys/kernel/tracing"
_NAMES = ("errno", "ip", "port", "stack", "symbol", "time", "tracepoint")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Format:
    """A name and what follows it: ``stack TABLE``, ``tracepoint CATEGORY:NAME FIELD``."""

    name: str
    words: tuple[str, ...] = ()


class Kernel(Protocol):
    """What has to be asked for addresses."""

    def symbol(self, address: int) -> str:
        """The function and the offset in it, else the address in hexadecimal."""

    def stack(self, table: str, stack_id: int) -> list[str]:
        """The functions of a stack, innermost first; nothing for one that was not kept."""


def parse(field: str, said: str) -> Format:
    """The format that an operator wrote for a field. Raises Failure."""
    name, *words = said.split() or [""]
    wanted = {"stack": (0, 1), "tracepoint": (2, 2)}.get(name, (0, 0))
    if name not in _NAMES or not wanted[0] <= len(words) <= wanted[1]:
        raise Failure(
            f"decode: {field}: {said!r} is none of errno, ip, port, stack, stack TABLE, symbol, "
            "time and tracepoint CATEGORY:NAME FIELD"
        )
    if name == "tracepoint" and not re.fullmatch(r"[\w-]+:[\w-]+", words[0]):
        raise Failure(f"decode: {field}: {words[0]!r} is not CATEGORY:NAME")
    return Format(name, tuple(words))


def reader(format_: Format, kernel: Kernel) -> Callable[[Any], Any]:
    """The function that turns a field's value into what the format says."""
    if format_.name == "stack":
        table = format_.words[0] if format_.words else ""
        return lambda value: kernel.stack(table, int(value))
    if format_.name == "symbol":
        return lambda value: kernel.symbol(int(value))
    if format_.name == "tracepoint":
        names = tracepoint_names(*format_.words)
        return lambda value: names.get(int(value), str(value))
    if format_.name == "time":
        offset = time.time_ns() - time.monotonic_ns()
        return lambda value: utc(int(value) + offset)
    return {"errno": error_name, "ip": address_text, "port": port_number}[format_.name]


def utc(nanoseconds: int) -> str:
    """A time since the epoch as text that sorts, to the microsecond."""
    found = _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def error_name(value: Any) -> Any:
    """The name of a negative errno; other numbers stay."""
    number = int(value)
    return errno.errorcode.get(-number, number) if number < 0 else number


def address_text(value: Any) -> str:
    """An address in network byte order: four bytes as a number, four or 16 as hexadecimal text.

    An IPv4 address in an IPv6 one is shown as such; one that is all zero as nothing.
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = bytes(value).hex()
    raw = bytes.fromhex(value) if isinstance(value, str) else value.to_bytes(4, sys.byteorder)
    if not any(raw):
        return ""
    if len(raw) not in (4, 16):
        raise Failure(f"decode: an address has 4 or 16 bytes, not {len(raw)}")
    found = ipaddress.ip_address(raw)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def port_number(value: Any) -> int:
    """A port in network byte order."""
    return int.from_bytes(int(value).to_bytes(2, sys.byteorder), "big")


def tracepoint_names(tracepoint: str, field: str) -> dict[int, str]:
    """The names that this kernel's tracepoint prints for a field's numbers. Raises Failure."""
    category, name = tracepoint.split(":")
    path = os.path.join(TRACEFS, "events", category, name, "format")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise Failure(f"decode: there is no tracepoint {tracepoint}: {error.strerror}") from error
    found = re.search(rf"__print_symbolic\(REC->{re.escape(field)}, (.*)\)", text)
    if not found:
        raise Failure(f"decode: the tracepoint {tracepoint} has no names for a field {field}")
    pairs = re.findall(r'\{ *(-?\w+), "([^"]*)" *\}', found[1])
    return {int(number, 0): name for number, name in pairs if re.match(r"-?\d", number)}
