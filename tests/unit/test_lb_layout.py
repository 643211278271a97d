# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Python and C agree on every byte of the load balancer's maps: the compiler is asked."""

from __future__ import annotations

import dataclasses
import ipaddress
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import (
    layout,
    layout_flows,
    moves,
    ring,
)

SOURCES = Path(__file__).parents[2] / "bpf" / "xdp_lb"

V4 = ipaddress.IPv4Address("192.0.2.10")
V6 = ipaddress.IPv6Address("2001:db8::10")
FLOW = layout_flows.Flow(b"\x0a\0\0\x01" + bytes(12), 0x1234, 0x5678, 0x01020304)

# Each value with the C struct that it is, and for every one of its members the bytes there.
VALUES: list[tuple[str, Any, dict[str, bytes]]] = [
    (
        "service4",
        layout.ServiceKey(V4, 0x1234, 6),
        {"address": V4.packed, "port": b"\x12\x34", "protocol": b"\x06", "zero": b"\0"},
    ),
    (
        "service6",
        layout.ServiceKey(V6, 0x1234, 17),
        {"address": V6.packed, "port": b"\x12\x34", "protocol": b"\x11", "zero": b"\0"},
    ),
    ("service", layout.Service(1, 2, 3), {"id": (1, 4), "forwarding": b"\x02", "flags": b"\x03"}),
    (
        "backend",
        layout.Backend(V4, 7, 0x1234, 1, 2, 0xFEDC),
        {
            "address": V4.packed + bytes(12),
            "service": (7, 4),
            "port": b"\x12\x34",
            "family": b"\x02",
            "state": b"\x01",
            "health": b"\x02",
            "zero": bytes(3),
            "weight": (0xFEDC, 4),
        },
    ),
    (
        "backend",
        layout.Backend(V6, 7, 80, 0, 1, 1),
        {"address": V6.packed, "family": b"\x0a", "state": b"\0", "health": b"\x01"},
    ),
    (
        "flow",
        FLOW,
        {
            "client": FLOW.client,
            "client_port": b"\x12\x34",
            "service_port": b"\x56\x78",
            "service": (0x01020304, 4),
        },
    ),
    (
        "flow_entry",
        layout_flows.FlowEntry(1, 65536, 0xDEADBEEF, 9),
        {"backend": (1, 4), "slot": (65536, 4), "seen": (0xDEADBEEF, 4), "state": b"\x09"},
    ),
    (
        "nat_reply",
        layout_flows.NatReply(V6, 0x1234, 0x5678, 17),
        {
            "backend": V6.packed,
            "backend_port": b"\x12\x34",
            "nat_port": b"\x56\x78",
            "protocol": b"\x11",
            "family": b"\x0a",
            "zero": b"\0\0",
        },
    ),
    (
        "nat_entry",
        layout_flows.NatEntry(1, 2, 3, 0x1234, 5, 6),
        {
            "backend": (1, 4),
            "seen": (2, 4),
            "server_sequence": (3, 4),
            "nat_port": b"\x12\x34",
            "state": b"\x05",
            "protocol": b"\x06",
        },
    ),
    (
        "nat_origin",
        layout_flows.NatOrigin(FLOW, V6.packed, 0xDEADBEEF),
        {"flow": FLOW.pack(), "vip": V6.packed, "seen": (0xDEADBEEF, 4)},
    ),
    (
        "settings",
        layout.Settings(1, 6, V4, V6, 1024, 32767, 300, 30, 10),
        {
            "layout": (1, 4),
            "flags": (6, 4),
            "source4": V4.packed + bytes(12),
            "source6": V6.packed,
            "nat_port_first": (1024, 2),
            "nat_port_last": (32767, 2),
            "idle_tcp": (300, 4),
            "idle_udp": (30, 4),
            "zero": bytes(4),
            "udp_grace": (10, 4),
        },
    ),
]


def native(wanted: Any) -> bytes:
    """A number of a given size as the host has it; bytes as they are."""
    if isinstance(wanted, bytes):
        return wanted
    number, size = wanted
    return number.to_bytes(size, sys.byteorder)


def compiles(*claims: str) -> None:
    """Have the compiler check claims about layout.h and maglev.h."""
    lines = ["#include <stddef.h>", '#include "layout.h"', '#include "maglev.h"']
    lines += [f'_Static_assert({claim}, "");' for claim in claims]
    done = subprocess.run(
        ["clang", "-fsyntax-only", "-x", "c", f"-I{SOURCES}", "-"],
        input="\n".join(lines) + "\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_member_is_where_the_compiler_has_it() -> None:
    claims = []
    for struct, value, members in VALUES:
        raw = value.pack()
        claims.append(f"sizeof(struct {struct}) == {len(raw)}")
        for member, wanted in members.items():
            content = native(wanted)
            starts = [at for at in range(len(raw)) if raw.startswith(content, at)]
            assert starts, (struct, member, raw.hex())
            held = " || ".join(f"offsetof(struct {struct}, {member}) == {at}" for at in starts)
            claims.append(f"({held})")
    compiles(*claims)


@pytest.mark.parametrize(("struct", "value"), [(each[0], each[1]) for each in VALUES])
def test_what_is_packed_is_read_back(struct: str, value: Any) -> None:
    assert type(value).unpack(value.pack()) == value


def test_sizes_of_the_maps() -> None:
    structs = {
        "services4": ("service4", "service"),
        "services6": ("service6", "service"),
        "service_filter": (None, "service_filter"),
        "service_names": (None, "service_name"),
        "backends": (None, "backend"),
        "settings": (None, "settings"),
        "flows_opening": ("flow", "flow_entry"),
        "flows": ("flow", "flow_entry"),
        "flows_leaving": ("flow", "flow_entry"),
        "nat_opening": ("flow", "nat_entry"),
        "nat_flows": ("flow", "nat_entry"),
        "nat_replies_opening": ("nat_reply", "nat_origin"),
        "nat_replies": ("nat_reply", "nat_origin"),
        "backend_counters": (None, "backend_counters"),
        "service_counters": (None, "service_counters"),
    }
    assert structs.keys() == layout.MAPS.keys() - {"rings", "reasons"}
    claims = [
        f"sizeof(struct ring) == {layout.RING_BYTES}",
        f"offsetof(struct ring, moved) == {4 * layout.RING_SLOTS}",
        "offsetof(struct slot, backend) == 0 && offsetof(struct slot, previous) == 2",
        f"LAYOUT == {layout.LAYOUT} && RING_SLOTS == {layout.RING_SLOTS}",
        f"sizeof(struct members) == {ring._MAPS['maglev_members']}",
        f"sizeof(struct progress) == {ring._MAPS['maglev_progress']}",
        f"sizeof(struct assignment) == {ring._MAPS['maglev_slots']}",
        f"MAGLEV_MEMBERS == {ring.MAX_MEMBERS}",
        "offsetof(struct member, position) == 0 && offsetof(struct member, skip) == 4",
        "offsetof(struct member, weight) == 8 && offsetof(struct member, credit) == 12",
        "offsetof(struct progress, turn) == 4 && offsetof(struct progress, price) == 12",
    ]
    for name, (key, value) in structs.items():
        _type, key_size, value_size = layout.MAPS[name]
        claims.append(f"sizeof(struct {key}) == {key_size}" if key else f"{key_size} == 4")
        claims.append(f"sizeof(struct {value}) == {value_size}")
    compiles(*claims)


def test_names_of_the_numbers() -> None:
    claims = [f"{name.upper()} == {number}" for number, name in enumerate(layout.REASONS)]
    claims += [f"REASONS == {len(layout.REASONS)}"]
    for prefix, names in (
        ("FORWARD", layout.FORWARDING),
        ("BACKEND", layout.STATES),
        ("HEALTH", layout.HEALTH),
    ):
        claims += [f"{prefix}_{name.upper()} == {number}" for number, name in enumerate(names)]
    for name in (
        "SERVICE_BY_SOURCE",
        "FLOW_OPENING",
        "FLOW_OPEN",
        "FLOW_CLIENT_FIN",
        "FLOW_BACKEND_FIN",
        "FLOW_RESET",
        "FLOW_CLAIMED",
        "SETTINGS_ANY_PORT",
        "SETTINGS_NAT4",
        "SETTINGS_NAT6",
        "SETTINGS_FILTER",
        "FILTER_FACTOR",
        "FILTER_BITS",
    ):
        claims.append(f"{name} == {getattr(layout, name)}")
    compiles(*claims)


def test_a_free_backend_and_empty_settings() -> None:
    assert layout.Backend.unpack(bytes(32)) == layout.Backend(None)
    assert layout.Backend(None).pack() == bytes(32)
    assert layout.Settings.unpack(bytes(60)) == layout.Settings()
    assert layout.Settings().pack() == bytes(60)
    with pytest.raises(ValueError, match="family 0"):
        layout_flows.NatReply.unpack(bytes(24))


def test_names_of_services() -> None:
    assert layout.unpack_service_name(layout.pack_service_name("web")) == "web"
    assert layout.unpack_service_name(bytes(64)) == ""
    assert len(layout.pack_service_name("x" * 63)) == 64
    with pytest.raises(ValueError, match="longer than 63 bytes"):
        layout.pack_service_name("ä" * 32)


def test_the_filter_has_a_bit_for_each_service() -> None:
    factor, size = layout.FILTER_FACTOR, 2**64
    keys = [layout.ServiceKey(V4, 80, 6).pack(), layout.ServiceKey(V6, 80, 6).pack()]
    word = int.from_bytes(keys[0], sys.byteorder)
    assert layout.filter_bit(keys[0]) == word * factor % size >> 48
    a, b, c = (int.from_bytes(keys[1][at : at + 8], sys.byteorder) for at in (0, 8, 16))
    assert layout.filter_bit(keys[1]) == ((a * factor + b) * factor + c) * factor % size >> 48
    packed = layout.pack_filter(keys)
    assert len(packed) == layout.FILTER_BITS // 8
    words = [int.from_bytes(packed[at : at + 8], sys.byteorder) for at in range(0, 8192, 8)]
    found = {64 * at + bit for at, each in enumerate(words) for bit in range(64) if each >> bit & 1}
    assert found == {layout.filter_bit(key) for key in keys}
    assert layout.pack_filter([]) == bytes(8192)


def test_counters_of_all_cpus_are_added() -> None:
    raw = b"".join(number.to_bytes(8, "little") for number in (1, 2, 3, 10, 20, 30))
    assert layout.sum_backend_counters(raw) == layout.BackendCounters(11, 22, 33)
    assert layout.sum_service_counters(raw) == layout.ServiceCounters(11, 22, 33)
    assert layout.sum_reason(raw) == 66


def test_another_layout_is_refused_in_words() -> None:
    kind, key_size, value_size = layout.MAPS["backends"]
    shape = info.MapInfo(1, kind, "backends", key_size, value_size, 8193, 0, 0, 0, 0)
    layout.check("backends", shape)
    with pytest.raises(Failure, match=r"map backends .* another version .* no migration"):
        layout.check("backends", dataclasses.replace(shape, value_size=40))
    layout.check_version(layout.Settings())
    layout.check_version(layout.Settings(layout=layout.LAYOUT))
    with pytest.raises(Failure, match=r"configured in layout 2, .* no migration"):
        layout.check_version(layout.Settings(layout=2))


def test_a_ring_is_pairs_and_its_time() -> None:
    before = ring.nobody()
    before[0], before[65536] = 1, 2
    packed = moves.Ring(before, before[::-1], 77).pack()
    assert len(packed) == layout.RING_BYTES
    assert packed[:4] == native((1, 2)) + native((2, 2))
    assert moves.Ring.unpack(packed) == moves.Ring(before, before[::-1], 77)
