# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bpf_test_run makes of its options, and how it says what was not met."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import (
    hexdiff,
    pcap,
    test_run,
    verdicts,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure

FRAME = bytes(range(20))


def request(**options: Any) -> test_run.Request:
    return test_run.request({"prog": "lb/xdp", "repeat": 1, "packets": [], **options})


def test_hexadecimal_is_taken_as_people_write_it() -> None:
    texts = [FRAME.hex(), FRAME.hex(":"), FRAME.hex(" ", 4), FRAME.hex("\n").upper()]
    taken = request(packets=[{"data": text} for text in texts])
    assert [packet.data for packet in taken.packets] == [FRAME] * 4
    assert [packet.name for packet in taken.packets] == [f"packet {n}" for n in (1, 2, 3, 4)]
    assert taken.pin == "/sys/fs/bpf/ebpf_fleet/lb/xdp"


@pytest.mark.parametrize(
    ("prog_type", "number", "word"),
    [
        ("xdp", 0, "aborted"),
        ("xdp", 4, "redirect"),
        ("xdp", 5, "5"),
        ("sched_cls", -1, "pass"),
        ("sched_cls", 0, "pass"),
        ("sched_cls", 2, "drop"),
        ("sched_cls", 3, "3"),
        ("cgroup_skb", 1, "pass"),
        ("cgroup_skb", 3, "pass"),
        ("cgroup_skb", 0, "drop"),
        ("socket_filter", 0, "drop"),
        ("socket_filter", 1500, "pass"),
    ],
)
def test_a_verdict_has_the_name_of_its_type(prog_type: str, number: int, word: str) -> None:
    assert verdicts.of_type(prog_type).word(number) == word
    assert verdicts.meets(number, word, prog_type)
    assert verdicts.meets(number, str(number), prog_type)
    assert not verdicts.meets(number, str(number + 1), prog_type)


def test_a_type_without_packets_is_refused() -> None:
    with pytest.raises(Failure, match="sk_msg programs cannot be run on packets; those that can"):
        verdicts.of_type("sk_msg")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_a_capture_is_read_in_either_byte_order(order: str, magic: int) -> None:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    one = struct.pack(order + "IIII", 1, 2, len(FRAME), len(FRAME)) + FRAME
    assert list(pcap.parse(head)) == []
    assert list(pcap.parse(head + one + one)) == [FRAME, FRAME]
    for cut in range(1, len(one)):
        with pytest.raises(ValueError, match="is truncated within a packet"):
            list(pcap.parse(head + one + one[:-cut]))


def test_packets_that_differ_are_shown_beside_each_other() -> None:
    expected, got = bytes(48), bytes(35) + b"\x01" + bytes(12)
    assert list(hexdiff.hexdiff(expected, got)) == [
        "        (2 equal rows)",
        "  0020  expected " + " ".join(["00"] * 16),
        "        got      00 00 00 01 " + " ".join(["00"] * 12),
        "                          ^^",
    ]


def test_a_packet_that_is_shorter_ends_early() -> None:
    rows = list(hexdiff.hexdiff(b"\x01" * 18, b"\x01" * 17))
    assert rows == [
        "        (1 equal row)",
        "  0010  expected 01 01",
        "        got      01",
        "                    ^^",
    ]


def test_what_is_not_compared_is_not_marked() -> None:
    assert list(hexdiff.hexdiff(b"\x01" * 16, bytes(14) + b"\x01\x01", start=14)) == [
        "        (1 equal row)"
    ]
