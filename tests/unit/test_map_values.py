# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and values of maps: from what people write to bytes, and back."""

from __future__ import annotations

import struct
import sys
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import (
    btf,
    btf_sections,
    btf_values,
    records,
    value_formats,
    values,
)

# A hand-made BTF: id by position.
TYPES = btf.Btf(
    (
        btf.Type("void"),
        btf.Type("int", "unsigned int", 4, bits=32),  # 1
        btf.Type("typedef", "__u32", type_id=1),  # 2
        btf.Type("typedef", "__be32", type_id=2),  # 3
        btf.Type("int", "unsigned char", 1, bits=8),  # 4
        btf.Type("array", type_id=4, count=6),  # 5
        btf.Type("int", "char", 1, bits=8, signed=True),  # 6
        btf.Type("array", type_id=6, count=8),  # 7
        btf.Type("int", "_Bool", 1, bits=8, boolean=True),  # 8
        btf.Type("array", type_id=3, count=4),  # 9
        btf.Type(
            "union",
            "",
            16,
            members=(btf.Member("v4", 3, 0), btf.Member("v6", 9, 0)),
        ),  # 10
        btf.Type(
            "struct",
            "backend",
            32,
            members=(
                btf.Member("", 10, 0),
                btf.Member("mac", 5, 128),
                btf.Member("up", 8, 176),
                btf.Member("low", 2, 192, 3),
                btf.Member("high", 2, 195, 29),
            ),
        ),  # 11
        btf.Type("const", type_id=3),  # 12
        btf.Type("enum", "color", 4, values=(("RED", 0), ("BLUE", 5))),  # 13
        btf.Type("ptr", type_id=1),  # 14
        btf.Type("func", "main"),  # 15
        btf.Type("struct", "in_addr", 4, members=(btf.Member("s_addr", 3, 0),)),  # 16
        btf.Type(
            "struct", "net", 8, members=(btf.Member("prefixlen", 2, 0), btf.Member("to", 16, 32))
        ),  # 17
    )
)


def shape(type_id: int) -> values.Shape:
    return btf_values.shape_of(TYPES, type_id)


def native(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size, sys.byteorder)


@pytest.mark.parametrize(
    ("type_id", "value", "raw"),
    [
        (2, 7, native(7)),
        (2, "7", native(7)),
        (2, " 0xff ", native(255)),
        (3, 1, b"\0\0\0\1"),
        (3, "10.0.0.1", b"\x0a\0\0\1"),
        (12, "10.0.0.1", b"\x0a\0\0\1"),
        (4, True, b"\1"),
        (5, "02:00:00:00:00:0f", b"\2\0\0\0\0\x0f"),
        (5, [1, 2], b"\1\2\0\0\0\0"),
        (7, "eth0", b"eth0\0\0\0\0"),
        (7, "", bytes(8)),
        (8, "True", b"\1"),
        (8, 0, b"\0"),
        (9, "::ffff:10.0.0.1", bytes(10) + b"\xff\xff\x0a\0\0\1"),
        (9, "10.0.0.1", bytes(10) + b"\xff\xff\x0a\0\0\1"),
        (9, [1], b"\0\0\0\1" + bytes(12)),
        (13, "BLUE", native(5)),
        (13, 1, native(1)),
        (14, 0, bytes(8)),
        (16, "10.0.0.1", b"\x0a\0\0\1"),
        (16, {"s_addr": 1}, b"\0\0\0\1"),
    ],
)
def test_encodes_and_decodes_in_the_same_terms(type_id: int, value: Any, raw: bytes) -> None:
    assert shape(type_id).encode(value, "x") == raw
    spelt = shape(type_id).decode(raw, value)
    assert shape(type_id).encode(spelt, "x") == raw
    assert isinstance(spelt, type(value)) or isinstance(value, str)


@pytest.mark.parametrize(
    ("type_id", "value", "message"),
    [
        (2, -1, "x: -1 is out of range for __u32 (0 to 4294967295)"),
        (2, 1 << 32, "out of range"),
        (2, True, "is a boolean"),
        (2, "1.5", "is no number"),
        (2, 1.5, "is no number"),
        (2, "08", "is no number"),
        (2, "10.0.0.1", "no one meaning"),
        (2, None, "is no number"),
        (5, "02:00:00:00:00", "is not a MAC"),
        (5, [256], "x[0]: 256 is out of range"),
        (7, "eightchr", "at most 7 bytes"),
        (7, 5, "is no string; quote it"),
        (8, "maybe", "is no boolean"),
        (9, "fe80::1%eth0", "has a zone"),
        (13, "GREEN", "is not in enum color, which has RED, BLUE"),
        (16, "::1", "IPv6 address where an IPv4"),
        (16, 5, "is no IP address; quote it"),
        (11, [], "is no dict of the members of struct backend"),
        (11, {"v4": 1, "v6": "::1"}, "v6 and v4 share their bytes"),
        (11, {"speed": 1}, "has no member speed; its members are v4, v6, mac, up, low, high"),
        (11, {"low": 8}, "x.low: 8 is out of range for __u32 of 3 bits (0 to 7)"),
    ],
)
def test_refuses_with_the_place_and_the_reason(type_id: int, value: Any, message: str) -> None:
    with pytest.raises(values.BadValue) as error:
        shape(type_id).encode(value, "x")
    assert str(error.value).startswith("x")
    assert message in str(error.value)


def test_what_holds_no_data_has_no_shape() -> None:
    with pytest.raises(values.BadValue, match="func main"):
        shape(15)


def test_members_of_anonymous_unions_and_bit_fields() -> None:
    raw = shape(11).encode({"v6": "fd00::1", "low": 5, "high": 9, "up": "yes"}, "x")
    assert raw[:16] == b"\xfd" + bytes(14) + b"\1"
    assert raw[16:24] == bytes(6) + b"\1\0"
    if sys.byteorder == "little":
        assert raw[24:28] == native(5 | 9 << 3)
    assert shape(11).decode(raw, {"v6": "::"}) == {"v6": "fd00::1", "up": True, "low": 5, "high": 9}


def test_signed_bit_fields_keep_their_sign() -> None:
    types = btf.Btf(
        (
            btf.Type("void"),
            btf.Type("int", "int", 4, bits=32, signed=True),
            btf.Type(
                "struct", "s", 4, members=(btf.Member("a", 1, 0, 5), btf.Member("b", 1, 5, 3))
            ),
        )
    )
    record = btf_values.shape_of(types, 2)
    for a, b in ((-16, 3), (15, -4), (-1, -1)):
        assert record.decode(record.encode({"a": a, "b": b}, "x"), {}) == {"a": a, "b": b}


def test_a_purged_union_is_shown_by_its_widest_member() -> None:
    raw = shape(11).encode({"v4": "10.0.0.1"}, "x")
    assert shape(11).decode(raw)["v6"] == "a00:1::"


def test_arrays_leave_out_the_zeros_that_nobody_wrote() -> None:
    array = records.Sequence(values.Number(2), 4)
    assert array.decode(array.encode([1, 0, 3], "x")) == [1, 0, 3]
    assert array.decode(array.encode([0, 0], "x"), [1, 1]) == [0, 0]


@pytest.mark.parametrize(
    ("text", "length", "data"),
    [
        ("10.0.0.0/8", 8, b"\x0a\0\0\0"),
        ("10.0.0.1", 32, b"\x0a\0\0\1"),
        ("0.0.0.0/0", 0, bytes(4)),
    ],
)
def test_trie_keys_as_prefixes(text: str, length: int, data: bytes) -> None:
    for key in (
        btf_values.prefix_key(shape(17)),
        btf_values.prefix_key(value_formats.parse("u32 ipv4", "key_format")),
        btf_values.prefix_key(value_formats.parse("u32 hex[4]", "key_format")),
    ):
        raw = key.encode(text, "x")
        assert raw == struct.pack("=I", length) + data
        assert key.decode(raw, text) == (text if "/" in text else f"{text}/32")


def test_trie_keys_of_sixteen_bytes_hold_mapped_prefixes() -> None:
    key = btf_values.prefix_key(value_formats.parse("u32 ipv6", "key_format"))
    raw = key.encode("10.0.0.0/8", "x")
    assert raw == struct.pack("=I", 104) + bytes(10) + b"\xff\xff\x0a\0\0\0"
    assert key.decode(raw) == "10.0.0.0/8"
    assert key.decode(raw, "::/0") == "::ffff:10.0.0.0/104"
    assert key.encode("::ffff:10.0.0.0/104", "x") == raw
    assert key.decode(key.encode("::/0", "x")) == "::/0"
    assert key.encode([104, "::ffff:10.0.0.0"], "x") == raw


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("10.0.0.0/33", "/33 is longer than the 32 bits"),
        ("10.0.0.0/x", "'x' is no prefix length"),
        ({"prefixlen": 33}, "a prefix of 33 bits, but the key has 32"),
        ({"prefixlen": 8, "to": "10.0.0.1"}, "has bits set beyond its prefix"),
    ],
)
def test_trie_keys_that_are_refused(value: Any, message: str) -> None:
    with pytest.raises(values.BadValue, match=r"^x: ") as error:
        btf_values.prefix_key(shape(17)).encode(value, "x")
    assert message in str(error.value)


def test_the_same_prefix_is_the_same_key() -> None:
    key = btf_values.prefix_key(shape(17))
    assert key.canonical(struct.pack("=I", 9) + b"\x0a\xff\1\2") == (
        struct.pack("=I", 9) + b"\x0a\x80\0\0"
    )


def test_per_cpu_values() -> None:
    shape_ = records.PerCpu(values.Number(4), 3)
    assert shape_.size == 24
    assert shape_.encode(7, "x") == (native(7) + bytes(4)) * 3
    each = shape_.encode([1, 2, 3], "x")
    assert shape_.decode(each) == [1, 2, 3]
    assert shape_.decode(shape_.encode(7, "x")) == 7
    with pytest.raises(values.BadValue, match="2 values for 3 possible CPUs"):
        shape_.encode([1, 2], "x")


def test_per_cpu_arrays_take_one_list_for_all_or_a_list_of_lists() -> None:
    shape_ = records.PerCpu(records.Sequence(values.Number(4), 2), 2)
    assert shape_.encode([1, 2], "x") == (native(1) + native(2)) * 2
    assert shape_.decode(shape_.encode([[1, 2], [3, 4]], "x"), [[0], [0]]) == [[1, 2], [3, 4]]


def test_formats() -> None:
    row = value_formats.parse("u8, pad[1] be16\nipv6 string[4] mac s16", "value_format")
    raw = row.encode([1, 80, "::1", "ab", "02:00:00:00:00:01", -1], "x")
    assert raw == b"\1\0\0\x50" + bytes(15) + b"\1ab\0\0\2\0\0\0\0\1\xff\xff"
    assert row.decode(raw, [1, "0x50"]) == [1, "0x50", "::1", "ab", "02:00:00:00:00:01", -1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "is empty; the words are u8"),
        ("pad[4]", "nothing but padding"),
        ("u33", "'u33' is none of u8"),
        ("be8", "'be8' is none of"),
        ("hex[0]", "is none of"),
    ],
)
def test_formats_that_are_refused(words: str, message: str) -> None:
    with pytest.raises(values.BadValue) as error:
        value_formats.parse(words, "key_format")
    assert message in str(error.value)


def test_raw_btf() -> None:
    strings = b"\0int\0port\0s\0"
    types = struct.pack("=IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("=III", 5, 8 << 24, 1)  # a typedef
    types += struct.pack("=III", 10, 1 << 31 | 4 << 24 | 1, 4) + struct.pack("=III", 5, 2, 9 << 24)
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    found = btf.parse(header + types + strings)
    assert found.types[1] == btf.Type("int", "int", 4, bits=32, signed=True)
    assert found.resolve(2) == (found.types[1], ("port",))
    assert found.types[3].members == (btf.Member("port", 2, 0, 9),)
    assert found.find("struct", "s") == 3
    for cut in (4, 30, 60):
        with pytest.raises(ValueError, match="BTF"):
            btf.parse((header + types + strings)[:cut])
    with pytest.raises(ValueError, match="no BTF"):
        btf.parse(bytes(24))


def test_sections_without_variables_give_way() -> None:
    strings = b"\0.rodata\0.data\0v\0"
    integer = struct.pack("=IIII", 0, 1 << 24, 4, 32)
    empty = struct.pack("=III", 1, 15 << 24, 20)
    variable = struct.pack("=IIII", 15, 14 << 24, 1, 1)
    data = struct.pack("=III", 9, 15 << 24 | 1, 4) + struct.pack("=III", 3, 0, 4)
    types = integer + empty + variable + data
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    raw = header + types + strings
    taken = btf_sections.without_empty(raw)
    pointer = struct.pack("=III", 0, 2 << 24, 0)
    assert taken == header + integer + pointer + variable + data + strings
    assert btf.variables(btf.parse(taken), ".data") == {"v": btf.Member("", 3, 0)}
    assert btf_sections.without_empty(taken) == taken
    with pytest.raises(ValueError, match="BTF"):
        btf_sections.without_empty(raw[:60])
