# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The TCP sockets of the current network namespace, as the kernel's sock_diag tells them.

Layouts: ``struct inet_diag_req_v2`` and ``inet_diag_msg`` of include/uapi/linux/inet_diag.h.
Addresses and ports are in network byte order there, cookies in the kernel's own.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from . import rtnetlink

# include/uapi/linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG, _BY_FAMILY = 4, 20
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID, since Linux 5.8
# net/tcp_states.h, as bits
_ESTABLISHED, _LISTEN = 1 << 1, 1 << 10
_REQUEST = struct.Struct("=BBBxI48x")
_ANSWER = struct.Struct("=BBBB2s2s16s16sIII20x")


@dataclass(frozen=True)
class TcpSocket:
    """One socket. ``cgroup_id`` is 0 where the kernel does not tell it; the remote of a listener
    is of no meaning.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    cookie: int
    cgroup_id: int
    is_listening: bool


def tcp() -> Iterator[TcpSocket]:
    """Those that are established, and those that listen. v4-mapped addresses are told as IPv4.

    None where the kernel has no inet_diag. Raises OSError.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        asked = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ESTABLISHED | _LISTEN)
        try:
            answers = rtnetlink.request(
                _BY_FAMILY, rtnetlink.F_DUMP, asked, "list TCP sockets", _SOCK_DIAG
            )
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EPROTONOSUPPORT):
                continue
            raise
        for answer in answers:
            yield _parsed(answer)


def _parsed(answer: bytes) -> TcpSocket:
    family, state, _timer, _retransmits, *ends, _device, low, high = _ANSWER.unpack_from(answer)
    local_port, remote_port, local, remote = ends
    group = rtnetlink.attributes(answer[_ANSWER.size :]).get(_CGROUP_ID, bytes(8))
    return TcpSocket(
        (_address(family, local), int.from_bytes(local_port, "big")),
        (_address(family, remote), int.from_bytes(remote_port, "big")),
        high << 32 | low,
        int.from_bytes(group, sys.byteorder),
        1 << state == _LISTEN,
    )


def _address(family: int, raw: bytes) -> str:
    if family == socket.AF_INET:
        return str(ipaddress.IPv4Address(raw[:4]))
    address = ipaddress.IPv6Address(raw)
    return str(address.ipv4_mapped or address)
