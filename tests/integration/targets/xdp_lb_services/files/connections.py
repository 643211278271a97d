# SPDX-License-Identifier: GPL-3.0-or-later
"""connections.py FLOWS SERVICE BACKEND COUNT: entries that the data plane would make for open connections."""

from __future__ import annotations

import struct
import subprocess
import sys
import time


def octets(data: bytes) -> list[str]:
    """As bpftool takes them."""
    return [f"0x{octet:02x}" for octet in data]


def main() -> None:
    """Write the entries."""
    path, service, backend, count = sys.argv[1], *map(int, sys.argv[2:])
    seen = time.monotonic_ns() >> 30
    for port in range(40000, 40000 + count):
        flow = (
            bytes([203, 0, 113, 7]).ljust(16, b"\0")
            + struct.pack(">HH", port, 80)
            + struct.pack("=I", service)
        )
        entry = struct.pack("=IIIB3x", backend, 0, seen, 1)
        command = [
            "bpftool",
            "map",
            "update",
            "pinned",
            path,
            "key",
            *octets(flow),
            "value",
            *octets(entry),
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
