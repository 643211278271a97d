# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The packets of a capture as tcpdump writes it (pcap-savefile(5))."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .errors import Failure, from_os_error

_MAGICS = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"} | {  # microseconds
    b"\x4d\x3c\xb2\xa1": "<",  # nanoseconds
    b"\xa1\xb2\x3c\x4d": ">",
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_ETHERNET = 1  # LINKTYPE_ETHERNET
_MAX_BYTES = 16 << 20


def read(path: str) -> tuple[bytes, ...]:
    """The packets of the capture. Raises Failure that says what is wrong with the file."""
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise from_os_error(error, f"read the capture {path}") from error
    if len(content) > _MAX_BYTES:
        raise Failure(f"{path} is larger than {_MAX_BYTES >> 20} MiB; cut it with editcap or -c")
    try:
        packets = tuple(parse(content))
    except ValueError as error:
        raise Failure(f"{path} {error}") from error
    if not packets:
        raise Failure(f"{path} holds no packet")
    return packets


def parse(content: bytes) -> Iterator[bytes]:
    """The packets of a capture's bytes. Raises ValueError that says what is wrong."""
    order = _MAGICS.get(content[:4])
    if content[:4] == _PCAPNG:
        raise ValueError("is a pcapng file; convert it with editcap -F pcap")
    if order is None or len(content) < 24:
        raise ValueError("is no pcap file; write one with tcpdump -w")
    (link_type,) = struct.unpack_from(order + "I", content, 20)
    if link_type & 0xFFFF != _ETHERNET:
        raise ValueError(
            f"has link type {link_type & 0xFFFF}, not Ethernet (1); capture on one interface, "
            "not on 'any'"
        )
    offset = 24
    while offset < len(content):
        if offset + 16 > len(content):
            raise ValueError("is truncated within a packet's header; copy it again")
        size, length = struct.unpack_from(order + "II", content, offset + 8)
        offset += 16
        if size < length:
            raise ValueError(f"holds {size} of a packet's {length} bytes; capture with -s 0")
        if offset + size > len(content):
            raise ValueError("is truncated within a packet; copy it again")
        yield content[offset : offset + size]
        offset += size
