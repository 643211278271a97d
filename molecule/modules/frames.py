# SPDX-License-Identifier: GPL-3.0-or-later
"""Frames to everybody on the machines' network, so that each has some to count.

frames.py FILE    until somebody removes the file, which is made first
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "machines"))

import layout  # noqa: E402

ETHERTYPE = 0x88B5  # for experiments, IEEE 802
CLONE_NEWNET = 0x40000000
LONGEST = 1800.0  # seconds, if nobody removes the file


def main() -> None:
    """Send, from the bridge."""
    wanted = Path(sys.argv[1])
    wanted.touch()
    end = time.monotonic() + LONGEST
    with open(f"/run/netns/{layout.this_run().namespace}", "rb") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    frame = b"\xff" * 6 + b"\x02" + bytes(5) + struct.pack("!H", ETHERTYPE) + bytes(46)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((layout.BRIDGE, 0))
        while wanted.exists() and time.monotonic() < end:
            sender.send(frame)
            time.sleep(0.2)


if __name__ == "__main__":
    main()
