# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A small netlink client: requests, answers, and the kernel's own words when it refuses.

Messages are in native byte order: ``struct nlmsghdr``, ``nlmsgerr`` and ``nlattr`` of
include/uapi/linux/netlink.h, ``ifinfomsg`` and ``tcmsg`` of linux/rtnetlink.h. A socket belongs to
the network namespace in which it is opened, so each request opens its own, in the current one.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

# include/uapi/linux/netlink.h
ROUTE, GENERIC = 0, 16
F_REQUEST, F_ACK, F_DUMP = 0x1, 0x4, 0x300
F_REPLACE, F_EXCL, F_CREATE = 0x100, 0x200, 0x400
_F_DUMP_INTR = 0x10
_F_CAPPED, _F_ACK_TLVS = 0x100, 0x200
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF

# include/uapi/linux/rtnetlink.h, linux/if_link.h
_NEWLINK, _GETLINK, SETLINK = 16, 18, 19
_IFNAME, _MTU, _EXT_MASK, XDP, _ALT_IFNAME = 3, 4, 29, 43, 53
_SKIP_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_IFNAMSIZ = 16

_HEADER = struct.Struct("=IHHII")
_RECEIVE = 1 << 18  # a dump comes in pieces of at most 32 KiB; one interface may take more


@dataclass(frozen=True)
class Interface:
    """A network device. ``mtu`` is in bytes; ``xdp`` is the nest IFLA_XDP as it came."""

    name: str
    ifindex: int
    mtu: int
    xdp: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *members: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NESTED, b"".join(members))


def text(kind: int, value: str) -> bytes:
    """An attribute with a string, which ends in a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def u32(kind: int, value: int) -> bytes:
    """An attribute with a number of 32 bits; -1 stands for all ones."""
    return attribute(kind, struct.pack("=I", value & 0xFFFFFFFF))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by type; of several of one type the last."""
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        if size < 4:
            break
        found[kind & _TYPE_MASK] = data[4:size]
        data = data[(size + 3) & ~3 :]
    return found


def as_text(value: bytes) -> str:
    """The string in an attribute."""
    return value.split(b"\0", 1)[0].decode("utf-8", "replace")


def as_u32(value: bytes | None) -> int:
    """The number in an attribute; 0 when there is none."""
    number: int = struct.unpack_from("=I", value)[0] if value else 0
    return number


def request(kind: int, flags: int, body: bytes, doing: str, family: int = ROUTE) -> list[bytes]:
    """Send one message of type ``kind`` and return the bodies of the answers.

    Raises OSError with the errno, ``doing`` as its filename, and in its text what the kernel says
    beyond the errno (extended ack, Linux 4.12). A dump that changed under way is made again.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as sock:
        sock.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        sock.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        if flags & F_DUMP != F_DUMP:
            flags |= F_ACK
        sequence = 0
        while True:
            sequence += 1
            size = _HEADER.size + len(body)
            sock.send(_HEADER.pack(size, kind, flags | F_REQUEST, sequence, 0) + body)
            answers = _receive(sock, sequence, doing)
            if answers is not None:
                return answers


def _receive(sock: socket.socket, sequence: int, doing: str) -> list[bytes] | None:
    """All answers to one message; None when the dump is not consistent."""
    answers = []
    consistent = True
    while True:
        data, _ancillary, flags, _sender = sock.recvmsg(_RECEIVE)
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "the answer is larger than expected", doing)
        for kind, message_flags, number, body in _messages(data):
            if number != sequence:
                continue
            consistent = consistent and not message_flags & _F_DUMP_INTR
            if kind not in (_ERROR, _DONE):
                answers.append(body)
                continue
            _raise_error(kind, message_flags, body, doing)
            return answers if consistent else None


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    while len(data) >= _HEADER.size:
        size, kind, flags, sequence, _port = _HEADER.unpack_from(data)
        yield kind, flags, sequence, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


def _raise_error(kind: int, flags: int, body: bytes, doing: str) -> None:
    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if code == 0:
        return
    said = ""
    if flags & _F_ACK_TLVS:
        said = as_text(attributes(body[_extended_at(kind, flags, body) :]).get(_ERROR_TEXT, b""))
    words = os.strerror(code)
    raise OSError(code, f"{words}: {said}" if said else words, doing)


def _extended_at(kind: int, flags: int, body: bytes) -> int:
    """Where the attributes begin: after the errno and, in an error, the message it is about."""
    if kind == _DONE:
        return 4
    if flags & _F_CAPPED:
        return 4 + _HEADER.size
    size: int = _HEADER.unpack_from(body, 4)[0]
    return 4 + ((size + 3) & ~3)


def interface_header(ifindex: int) -> bytes:
    """``struct ifinfomsg`` that names the interface and changes none of its flags."""
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, ifindex, 0, 0)


def interface(name: str) -> Interface | None:
    """The interface of the current network namespace with this name (or alternative name)."""
    by = text(_IFNAME if len(name) < _IFNAMSIZ else _ALT_IFNAME, name)
    skip = u32(_EXT_MASK, _SKIP_STATS)
    try:
        answers = request(_GETLINK, 0, interface_header(0) + by + skip, f"find interface {name}")
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return _interface(answers[0])


def interfaces() -> list[Interface]:
    """The interfaces of the current network namespace, by ifindex."""
    body = interface_header(0) + u32(_EXT_MASK, _SKIP_STATS)
    found = [_interface(answer) for answer in request(_GETLINK, F_DUMP, body, "list interfaces")]
    return sorted(found, key=lambda each: each.ifindex)


def _interface(body: bytes) -> Interface:
    ifindex: int = struct.unpack_from("=i", body, 4)[0]
    found = attributes(body[16:])
    return Interface(
        as_text(found.get(_IFNAME, b"")), ifindex, as_u32(found.get(_MTU)), found.get(XDP, b"")
    )
