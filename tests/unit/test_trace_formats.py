# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What fields of a trace mean, what it may be asked for, and where members of kernel structures lie."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.trace import formats, layout, request

OPTIONS: dict[str, Any] = {
    "source": "int x(void *context) { return 0; }",
    "duration": 10.0,
    "max_events": 10,
    "max_bytes": 4096,
    "probes": None,
    "cflags": None,
    "offsets": None,
    "decode": None,
    "tables": None,
    "perf_pages": 8,
    "load_timeout": 60.0,
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("7f000001", "127.0.0.1"),
        (int.from_bytes(bytes([10, 0, 0, 1]), sys.byteorder), "10.0.0.1"),
        ([192, 0, 2, 1], "192.0.2.1"),
        ("00000000000000000000ffffc0000201", "192.0.2.1"),
        ("20010db8000000000000000000000001", "2001:db8::1"),
        ("00" * 16, ""),
        (0, ""),
    ],
)
def test_an_address_is_text(value: Any, text: str) -> None:
    assert formats.address_text(value) == text


def test_an_address_has_four_or_sixteen_bytes() -> None:
    with pytest.raises(Failure, match="not 6"):
        formats.address_text("020000000001")


def test_ports_errors_and_times() -> None:
    assert formats.port_number(int.from_bytes((8080).to_bytes(2, "big"), sys.byteorder)) == 8080
    assert [formats.error_name(number) for number in (-2, 0, 7, -99999)] == ["ENOENT", 0, 7, -99999]
    assert formats.utc(1_000_000_000_123_456_789) == "2001-09-09T01:46:40.123456Z"


@pytest.mark.parametrize(
    "said", ["time", "ip", "stack", "stack s", "tracepoint skb:kfree_skb reason"]
)
def test_formats_that_there_are(said: str) -> None:
    found = formats.parse("field", said)
    assert " ".join([found.name, *found.words]) == said


@pytest.mark.parametrize("said", ["", "times", "ip 4", "tracepoint", "tracepoint kfree_skb reason"])
def test_formats_that_there_are_not(said: str) -> None:
    with pytest.raises(Failure, match="decode: field: "):
        formats.parse("field", said)


def test_a_request_is_what_the_options_say() -> None:
    probes = [{"function": "x", "kprobe": "do_exit", "kretprobe": None}]
    found = request.of({**OPTIONS, "probes": probes, "tables": []})
    assert found.probes == (request.Probe("x", "kprobe", "do_exit"),)
    assert (found.tables, found.duration, found.max_bytes) == ((), 10.0, 4096)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("source", "\n"),
        ("duration", float("nan")),
        ("duration", 0.0),
        ("max_events", 1_000_001),
        ("max_bytes", 0),
        ("perf_pages", 12),
        ("load_timeout", float("inf")),
        ("probes", [{"function": "x", "kprobe": "a", "tracepoint": "a:b"}]),
    ],
)
def test_what_cannot_be_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(Failure, match=f"^{option}: "):
        request.of({**OPTIONS, option: value})


def test_members_lie_where_bpftool_says() -> None:
    shown = subprocess.run(
        ["bpftool", "--json", "btf", "dump", "file", "/sys/kernel/btf/vmlinux"],
        check=True,
        capture_output=True,
        text=True,
    )
    types = {one["id"]: one for one in json.loads(shown.stdout)["types"]}
    device = next(
        one for one in types.values() if one["kind"] == "STRUCT" and one["name"] == "net_device"
    )
    expected = {
        f"net_device.{member['name']}": member["bits_offset"] // 8
        for member in device["members"]
        if member["name"] in ("ifindex", "name", "mtu")
    }
    assert len(expected) == 3
    assert layout.offsets(tuple(expected)) == expected
    # In a union in a structure without names.
    assert layout.offsets(("sk_buff.next", "sk_buff.network_header"))["sk_buff.next"] == 0
