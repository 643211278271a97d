# SPDX-License-Identifier: GPL-3.0-or-later
"""packets.py FROM TO COUNT: sends packets between two namespaces, 1 ms apart, and counts them."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
SO_NO_CHECK = 11  # asm-generic/socket.h: XDP in the driver sees checksums that nobody filled in yet
PORT = 4242


def udp_socket(netns: str) -> socket.socket:
    """A socket in the namespace."""
    with open(f"/run/netns/{netns}") as namespace:
        if LIBC.setns(namespace.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), netns)
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def arrived(sock: socket.socket) -> int:
    """How many datagrams wait at the socket."""
    count = 0
    try:
        while sock.recv(16, socket.MSG_DONTWAIT):
            count += 1
    except BlockingIOError:
        return count
    return count


def main() -> None:
    """Send, count, print."""
    sender, receiver = udp_socket(sys.argv[1]), udp_socket(sys.argv[2])
    receiver.bind(("192.0.2.1", PORT))
    sender.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sent = received = 0
    for dummy in range(int(sys.argv[3])):
        sent += sender.sendto(b"x", ("192.0.2.1", PORT))
        time.sleep(0.001)
        received += arrived(receiver)
    time.sleep(0.1)
    print(f"{received + arrived(receiver)} of {sent}")


main()
