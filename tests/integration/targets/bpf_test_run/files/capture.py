# SPDX-License-Identifier: GPL-3.0-or-later
"""capture.py DIRECTORY: captures as tcpdump writes them, and some that it does not."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

PACKETS = [bytes([2, 0, 0, 0, 0, verdict]) + bytes(8) + b"data" for verdict in (2, 2, 1)]


def capture(order: str, magic: int, link_type: int = 1, cut: int = 0) -> bytes:
    """The packets in a file of that byte order; `cut`: bytes that were not captured of each."""
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link_type)
    for packet in PACKETS:
        kept = packet[: len(packet) - cut]
        head += struct.pack(order + "IIII", 1, 2, len(kept), len(packet)) + kept
    return head


def main() -> None:
    """Write them."""
    files = {
        "little": capture("<", 0xA1B2C3D4),
        "big": capture(">", 0xA1B2C3D4),
        "nanoseconds": capture("<", 0xA1B23C4D),
        "cut": capture("<", 0xA1B2C3D4, cut=2),
        "cooked": capture("<", 0xA1B2C3D4, link_type=113),
        "truncated": capture("<", 0xA1B2C3D4)[:-3],
        "empty": capture("<", 0xA1B2C3D4)[:24],
        "ng": b"\x0a\x0d\x0d\x0a" + bytes(40),
        "text": b"packets, packets, packets, packets",
    }
    for name, content in files.items():
        Path(sys.argv[1], f"{name}.pcap").write_bytes(content)


main()
