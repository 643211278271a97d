# SPDX-License-Identifier: GPL-3.0-or-later
"""witness.py MAPS: what bpftool shows of a load balancer's maps, as one JSON object."""

from __future__ import annotations

import ipaddress
import json
import struct
import subprocess
import sys
from collections import Counter
from typing import Any

FACTOR = 0x9E3779B97F4A7C15
RING_SLOTS = 65537


def bpftool(*arguments: str) -> Any:
    """What it says, parsed."""
    done = subprocess.run(["bpftool", "-j", "map", *arguments], capture_output=True, check=True)
    return json.loads(done.stdout)


def entries(path: str) -> list[tuple[bytes, bytes]]:
    """The entries of a map."""
    found = [entry for entry in bpftool("dump", "pinned", path) if isinstance(entry["value"], list)]
    return [(raw(entry["key"]), raw(entry["value"])) for entry in found]


def raw(octets: list[str]) -> bytes:
    return bytes(int(octet, 16) for octet in octets)


def address(data: bytes, family: int) -> str:
    return str(ipaddress.ip_address(data[:4] if family == 2 else data[:16]))


def service_key(key: bytes) -> str:
    size = len(key) - 4
    port, protocol = struct.unpack_from(">HB", key, size)
    return f"{ipaddress.ip_address(key[:size])} {port} {protocol}"


def service(value: bytes) -> dict[str, int]:
    number, forwarding, flags = struct.unpack_from("=IBB", value)
    return {"id": number, "forwarding": forwarding, "flags": flags}


def backend(value: bytes) -> dict[str, Any]:
    owner = struct.unpack_from("=I", value, 16)[0]
    port = struct.unpack_from(">H", value, 20)[0]
    family, state, health = value[22:25]
    weight = struct.unpack_from("=I", value, 28)[0]
    return {
        "address": address(value, family),
        "port": port,
        "service": owner,
        "state": state,
        "health": health,
        "weight": weight,
    }


def ring(number: int, backends: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """A ring's slots by backend; the map's id and the time tell whether it was replaced."""
    value = raw(bpftool("lookup", "id", str(number), "key", "0", "0", "0", "0")["value"])
    numbers = struct.unpack(f"={2 * RING_SLOTS}H", value[: 4 * RING_SLOTS])
    slots = Counter(numbers[0::2])
    return {
        "map": number,
        "moved": struct.unpack_from("=I", value, 4 * RING_SLOTS)[0],
        "slots": slots,
        "addresses": {
            backends[key]["address"] if key in backends else str(key): count
            for key, count in slots.items()
            if key
        },
        "previous": {key: count for key, count in Counter(numbers[1::2]).items() if key},
    }


def settings(value: bytes) -> dict[str, Any]:
    layout, flags = struct.unpack_from("=II", value)
    first, last, tcp, udp, _zero, grace = struct.unpack_from("=HHIIII", value, 40)
    return {
        "layout": layout,
        "flags": flags,
        "source4": address(value[8:24], 2),
        "source6": address(value[24:40], 10),
        "nat_port_first": first,
        "nat_port_last": last,
        "idle_tcp": tcp,
        "idle_udp": udp,
        "udp_grace": grace,
    }


def filter_bit(key: bytes) -> int:
    """The bit of a service's key, as layout.h says."""
    product = 0
    for start in range(0, len(key), 8):
        word = int.from_bytes(key[start : start + 8], sys.byteorder)
        product = (product + word) * FACTOR % 2**64
    return product >> 48


def filter_bits(value: bytes) -> set[int]:
    words = struct.unpack(f"={len(value) // 8}Q", value)
    return {
        64 * index + bit
        for index, word in enumerate(words)
        if word
        for bit in range(64)
        if word >> bit & 1
    }


def main() -> None:
    """Look and print."""
    maps = sys.argv[1]
    services = [*entries(f"{maps}/services4"), *entries(f"{maps}/services6")]
    names = [
        (key, value.split(b"\0")[0].decode()) for key, value in entries(f"{maps}/service_names")
    ]
    records = [(key, value) for key, value in entries(f"{maps}/backends") if value[22]]
    rings = [(key, int.from_bytes(value, sys.byteorder)) for key, value in entries(f"{maps}/rings")]
    ((_zero, kept),) = entries(f"{maps}/service_filter")
    ((_zero, wide),) = entries(f"{maps}/settings")

    def number(key: bytes) -> int:
        return int.from_bytes(key, sys.byteorder)

    backends = {number(key): backend(value) for key, value in records}
    shown = {
        "services": {service_key(key): service(value) for key, value in services},
        "names": {number(key): name for key, name in names if name},
        "backends": backends,
        "rings": {number(key): ring(inner, backends) for key, inner in rings},
        "settings": settings(wide),
        "filter_is_right": filter_bits(kept) == {filter_bit(key) for key, _value in services},
    }
    print(json.dumps(shown, sort_keys=True))


if __name__ == "__main__":
    main()
