# SPDX-License-Identifier: GPL-3.0-or-later
"""Another tool: somebody.py NETNS INTERFACE PROGRAM LINK attaches XDP by a pinned link."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct
import sys

OBJ_PIN, OBJ_GET, LINK_CREATE = 6, 7, 28
XDP, DRIVER_MODE = 37, 1 << 2
NR_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
LIBC = ctypes.CDLL(None, use_errno=True)


def bpf(command: int, attr: bytes) -> int:
    """Call bpf(2)."""
    result: int = LIBC.syscall(NR_BPF, command, attr, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def path(name: str) -> tuple[ctypes.Array[ctypes.c_char], int]:
    """A path in memory, and its address."""
    memory = ctypes.create_string_buffer(name.encode())
    return memory, ctypes.addressof(memory)


def main() -> None:
    """Attach and pin."""
    netns, interface, program, link = sys.argv[1:]
    _prog_path, prog_address = path(program)
    _link_path, link_address = path(link)
    prog_fd = bpf(OBJ_GET, struct.pack("=QII", prog_address, 0, 0))
    with open(f"/run/netns/{netns}") as namespace:
        if LIBC.setns(namespace.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    ifindex = socket.if_nametoindex(interface)
    link_fd = bpf(LINK_CREATE, struct.pack("=IIII", prog_fd, ifindex, XDP, DRIVER_MODE))
    bpf(OBJ_PIN, struct.pack("=QII", link_address, link_fd, 0))


main()
