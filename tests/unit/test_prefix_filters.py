# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that the filters make cover what was asked for, no more and no less."""

from __future__ import annotations

import random

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.ebpf.fleet.plugins.filter.cidr_prefixes import cidr_prefixes
from ansible_collections.ebpf.fleet.plugins.filter.port_prefixes import port_prefixes


def covered(keys: list[dict[str, int]]) -> list[int]:
    """Every port that the keys cover, as often as they do."""
    ports: list[int] = []
    for key in keys:
        size = 1 << (16 - key["prefixlen"])
        assert key["port"] % size == 0
        ports.extend(range(key["port"], key["port"] + size))
    return ports


@pytest.mark.parametrize(
    ("items", "keys"),
    [
        ([], []),
        ([80], [(16, 80)]),
        (["80", 80, "80-80"], [(16, 80)]),
        (["8000-8015"], [(12, 8000)]),
        ([443, 80], [(16, 80), (16, 443)]),
        (["80-81", "82-83"], [(14, 80)]),
        (["90-100", "80-95"], None),
        ([65535], [(16, 65535)]),
        (["32768-65535"], [(1, 32768)]),
    ],
)
def test_ports(items: list[object], keys: list[tuple[int, int]] | None) -> None:
    result = port_prefixes(items)
    if keys is not None:
        assert [(key["prefixlen"], key["port"]) for key in result] == keys
    else:
        assert covered(result) == list(range(80, 101))


def test_a_value_makes_entries() -> None:
    assert port_prefixes([80], value=1) == [{"key": {"prefixlen": 16, "port": 80}, "value": 1}]
    key = {"prefixlen": 128, "address": "::1"}
    assert cidr_prefixes(["::1"], value=0) == [{"key": key, "value": 0}]


def test_all_ports_are_sixteen_keys() -> None:
    keys = port_prefixes(["1-65535"])
    assert len(keys) == 16
    assert covered(keys) == list(range(1, 65536))


def test_any_ranges_are_covered_exactly_once() -> None:
    generator = random.Random(7)
    for _round in range(200):
        wanted: set[int] = set()
        items = []
        for _range in range(generator.randint(1, 5)):
            first = generator.randint(1, 2000)
            last = generator.randint(first, 2100)
            wanted.update(range(first, last + 1))
            items.append(f"{first}-{last}")
        assert covered(port_prefixes(items)) == sorted(wanted)


@pytest.mark.parametrize(
    "item",
    [0, 65536, -1, True, 80.0, None, "", "http", "80-", "-80", "80-70", "1-65536", "80 ", "0x50"],
)
def test_what_is_no_port_is_named(item: object) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        port_prefixes([443, item])
    assert repr(item) in str(caught.value)


def test_reversed_range_says_how_to_write_it() -> None:
    with pytest.raises(AnsibleFilterError, match="write 70-80"):
        port_prefixes(["80-70"])


@pytest.mark.parametrize("value", ["80", {"port": 80}, 80, None])
def test_no_list_of_ports(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="needs a list"):
        port_prefixes(value)


@pytest.mark.parametrize(
    ("items", "keys"),
    [
        ([], []),
        (["10.0.0.0/8"], [(104, "::ffff:10.0.0.0")]),
        (["127.0.0.1"], [(128, "::ffff:127.0.0.1")]),
        (["0.0.0.0/0"], [(96, "::ffff:0.0.0.0")]),
        (["::/0", "10.0.0.0/8"], [(0, "::")]),
        (["::1"], [(128, "::1")]),
        (["fd00::/8", "10.0.0.0/8"], [(104, "::ffff:10.0.0.0"), (8, "fd00::")]),
        (["10.0.0.0/9", "10.128.0.0/9"], [(104, "::ffff:10.0.0.0")]),
        (["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8"], [(104, "::ffff:10.0.0.0")]),
        (["::ffff:10.0.0.0/104"], [(104, "::ffff:10.0.0.0")]),
    ],
)
def test_cidrs(items: list[str], keys: list[tuple[int, str]]) -> None:
    assert [(key["prefixlen"], key["address"]) for key in cidr_prefixes(items)] == keys


@pytest.mark.parametrize(
    "item", ["10.0.0.0/33", "10.0.0", "fd00::/129", "localhost", "", 10, None, "fe80::1%eth0/64"]
)
def test_what_is_no_cidr_is_named(item: object) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        cidr_prefixes(["10.0.0.0/8", item])
    assert repr(item) in str(caught.value)


def test_host_bits_are_refused_with_the_network_that_was_meant() -> None:
    with pytest.raises(AnsibleFilterError, match=r"'10\.0\.0\.1/8'.*write 10\.0\.0\.0/8"):
        cidr_prefixes(["10.0.0.1/8"])
