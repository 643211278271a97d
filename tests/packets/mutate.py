# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets that nobody would send, made from those that somebody does."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

from packets import NUMBERS, sum16

BYTES = (0, 1, 4, 5, 6, 0x0F, 0x11, 0x40, 0x45, 0x46, 0x60, 0x7F, 0x80, 0xFF)
WORDS = (0, 1, 7, 8, 20, 39, 40, 0x0800, 0x1FFF, 0x2000, 0x3FFF, 0x7FFF, 0x8100, 0x86DD, 0xFFFF)
LONGEST = 1800


def mutated(chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One to four changes; then, more often than not, lengths and checksums that fit them."""
    frame = bytearray(chance.choice(seeds))
    for dummy in range(chance.choice((0, 1, 1, 1, 2, 2, 3, 4))):
        chance.choice(_CHANGES)(chance, frame, seeds)
    del frame[LONGEST:]
    frame.extend(bytes(max(0, 14 - len(frame))))
    if chance.random() < 0.6:
        _repair(frame, lengths=chance.random() < 0.5)
    return bytes(frame)


def _near(chance: random.Random, frame: bytearray) -> int:
    """Most of the time in the headers."""
    most = len(frame) if chance.random() < 0.1 else min(len(frame), 100)
    return chance.randrange(most)


def _flip_bit(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    frame[_near(chance, frame)] ^= 1 << chance.randrange(8)


def _set_byte(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    frame[_near(chance, frame)] = chance.choice(BYTES)


def _random_byte(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    frame[_near(chance, frame)] = chance.randrange(256)


def _set_word(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    at = _near(chance, frame) & ~1
    frame[at : at + 2] = struct.pack("!H", chance.choice((*WORDS, len(frame) - 14)))


def _ports(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    """Other clients, other connections."""
    at = {b"\x08\x00": 34, b"\x86\xdd": 54}.get(bytes(frame[12:14]), 34)
    frame[at : at + 2] = chance.randbytes(2)


def _flags(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    at = {b"\x08\x00": 47, b"\x86\xdd": 67}.get(bytes(frame[12:14]), 47)
    if at < len(frame):
        frame[at] = chance.randrange(64)


def _cut(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    del frame[chance.randrange(14, max(15, len(frame))) :]


def _grow(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    frame.extend(chance.randbytes(chance.randrange(1, 64)))


def _remove(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    at = _near(chance, frame)
    del frame[at : at + chance.choice((1, 2, 4, 8, 20))]


def _insert(chance: random.Random, frame: bytearray, _seeds: Sequence[bytes]) -> None:
    at = _near(chance, frame)
    frame[at:at] = chance.randbytes(chance.choice((1, 2, 4, 8, 20)))


def _splice(chance: random.Random, frame: bytearray, seeds: Sequence[bytes]) -> None:
    other = chance.choice(seeds)
    at = _near(chance, frame)
    frame[at:] = other[min(at, len(other)) :]


_CHANGES: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip_bit, _set_byte, _random_byte, _set_word, _cut, _grow, _remove, _insert, _splice),
    *(_ports, _ports, _flags),
)


def _repair(frame: bytearray, lengths: bool) -> None:
    """So that a change is not noticed by a length or a checksum before it is met."""
    if frame[12:14] == b"\x08\x00" and len(frame) >= 54 and frame[14] == 0x45:
        if lengths:
            struct.pack_into("!H", frame, 16, len(frame) - 14)
        frame[24:26] = b"\0\0"
        struct.pack_into("!H", frame, 24, sum16(bytes(frame[14:34])) ^ 0xFFFF)
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
        _repair_transport(frame, bytes(frame[26:34]), frame[23], 34, end, lengths)
    elif frame[12:14] == b"\x86\xdd" and len(frame) >= 74:
        if lengths:
            struct.pack_into("!H", frame, 18, len(frame) - 54)
        end = 54 + struct.unpack_from("!H", frame, 18)[0]
        _repair_transport(frame, bytes(frame[22:54]), frame[20], 54, end, lengths)


def _repair_transport(
    frame: bytearray, addresses: bytes, protocol: int, at: int, end: int, lengths: bool
) -> None:
    place = {6: 16, 17: 6, 1: 2, 58: 2}.get(protocol)
    if place is None or not at + 20 <= end <= len(frame):
        return
    if protocol == NUMBERS["udp"]:
        if lengths:
            struct.pack_into("!H", frame, at + 4, end - at)
        if frame[at + 6 : at + 8] == b"\0\0":
            return
    frame[at + place : at + place + 2] = b"\0\0"
    segment = bytes(frame[at:end])
    pseudo = b"" if protocol == 1 else addresses + struct.pack("!II", len(segment), protocol)
    total = sum16(pseudo + segment) ^ 0xFFFF
    struct.pack_into("!H", frame, at + place, total or 0xFFFF)
