# SPDX-License-Identifier: GPL-3.0-or-later
"""packed.py FROM TO SERVER VIP: sends a datagram for the VIP, packed for the server; says whether it arrives."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
PORT = 9999


def enter(netns: str) -> None:
    """Be in the namespace."""
    with open(f"/run/netns/{netns}") as namespace:
        if LIBC.setns(namespace.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def packet(source: str, destination: str, text: bytes) -> bytes:
    """IPv4 and UDP, with the header's checksum and none of UDP."""
    udp = struct.pack("!HHHH", PORT, PORT, 8 + len(text), 0) + text
    fixed = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(udp), 1, 0, 64, socket.IPPROTO_UDP)
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    total = sum(struct.unpack("!10H", fixed + b"\0\0" + ends))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return fixed + struct.pack("!H", total) + ends + udp


def main() -> None:
    """Send and wait three seconds."""
    here, there, server, vip = sys.argv[1:]
    enter(there)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("", PORT))
    receiver.settimeout(3)
    enter(here)
    sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP)
    sender.sendto(packet("10.124.0.2", vip, b"packed"), (server, 0))
    try:
        print(receiver.recv(16).decode())
    except socket.timeout:
        print("nothing")


main()
