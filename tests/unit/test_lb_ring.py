# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rings: the kernel's result against an independent one, and how well it hashes."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import ipaddress
import os
import random
import signal
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, maps, pins
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import moves, ring
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.layout import RING_SLOTS

OBJECT = Path(__file__).parents[2] / "roles" / "xdp_lb" / "files" / "maglev.bpf.o"
_MNT_DETACH = 2


@pytest.fixture(scope="module")
def computer() -> Iterator[ring.Computer]:
    assert OBJECT.exists(), f"{OBJECT} is not built: make -C bpf"
    with ring.open_object(str(OBJECT)) as opened:
        yield opened


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"bpf", os.fsencode(tmp_path), b"bpf", 0, None) == 0
    yield tmp_path
    assert libc.umount2(os.fsencode(tmp_path), _MNT_DETACH) == 0


def members(weights: Sequence[int], seed: int = 0) -> list[ring.Member]:
    """Backends with these weights and addresses of their own for each seed."""
    first = ipaddress.IPv4Address("10.0.0.1") + 65536 * seed
    return [
        ring.Member(number, first + number, 8080, weight)
        for number, weight in enumerate(weights, 1)
    ]


def wishes(backend: ring.Member) -> Iterator[int]:
    """All slots in the order in which the backend wants them."""
    family = 2 if backend.address.version == 4 else 10
    name = (
        bytes([family]) + backend.address.packed.ljust(16, b"\0") + backend.port.to_bytes(2, "big")
    )
    hashed = hashlib.blake2b(name, digest_size=16).digest()
    offset = int.from_bytes(hashed[:8], "big") % RING_SLOTS
    skip = int.from_bytes(hashed[8:], "big") % (RING_SLOTS - 1) + 1
    return ((offset + step * skip) % RING_SLOTS for step in range(RING_SLOTS))


def reference(backends: Sequence[ring.Member]) -> array[int]:
    """Maglev hashing once more, from its description: whole permutations, no cleverness."""
    ordered = sorted(backends, key=lambda each: (each.address.version, each.address, each.port))
    heaviest = max(each.weight for each in ordered)
    wanted, earned = [wishes(each) for each in ordered], [0] * len(ordered)
    slots: dict[int, int] = {}
    while True:
        for index, each in enumerate(ordered):
            earned[index] += each.weight
            if earned[index] < heaviest:
                continue
            earned[index] -= heaviest
            slot = next(wish for wish in wanted[index] if wish not in slots)
            slots[slot] = each.id
            if len(slots) == RING_SLOTS:
                return array("H", [slots[slot] for slot in range(RING_SLOTS)])


@pytest.mark.parametrize(
    "weights",
    [[1], [65535], [7, 7], [1, 2, 3], [10] * 100, [65535, 1, 300], [1 + 37 * n for n in range(40)]],
    ids=lambda weights: f"{len(weights)} from {min(weights)} to {max(weights)}",
)
def test_the_kernel_computes_what_maglev_is(computer: ring.Computer, weights: list[int]) -> None:
    backends = members(weights)
    assert computer.assign(backends) == reference(backends)


def test_both_families_and_ports_are_told_apart(computer: ring.Computer) -> None:
    v6 = ipaddress.IPv6Address("2001:db8::1")
    backends = [*members([3, 5]), ring.Member(8, v6, 80, 5), ring.Member(9, v6, 81, 5)]
    assert computer.assign(backends) == reference(backends)
    like_v4 = ipaddress.IPv6Address(members([1])[0].address.packed + bytes(12))
    backends = [*members([1]), ring.Member(2, like_v4, 8080, 1)]
    assert sorted(ring.counts(computer.assign(backends)).values()) == [32768, 32769]


def test_order_and_ids_do_not_matter(computer: ring.Computer) -> None:
    here = members([(7 * n) % 50 + 1 for n in range(100)])
    there = [replace(each, id=8000 - each.id) for each in here]
    random.Random(1).shuffle(there)
    ours, theirs = computer.assign(here), computer.assign(iter(there))
    assert array("H", [8000 - number for number in theirs]) == ours
    assert ring.digest(ours, here) == ring.digest(theirs, there)
    assert ring.digest(ours, here) != ring.digest(ours, [*here[1:], replace(here[0], port=1)])


def test_the_digest_is_of_identities_in_slot_order(computer: ring.Computer) -> None:
    backends = members([1, 2])
    slots = computer.assign(backends)
    names = {each.id: ring.identity(each.address, each.port) for each in backends}
    assert {len(name) for name in names.values()} == {19}
    whole = b"".join(names[number] for number in slots)
    assert ring.digest(slots, backends) == hashlib.sha256(whole).hexdigest()
    assert ring.digest(ring.nobody(), []) == hashlib.sha256(bytes(19 * RING_SLOTS)).hexdigest()


@pytest.mark.parametrize("count", [2, 3, 7, 10, 50, 100, 500])
def test_equal_weights_are_balanced_within_one_per_cent(
    computer: ring.Computer, count: int
) -> None:
    for weight in (1, 10, 65535):
        slots = ring.counts(computer.assign(members([weight] * count, seed=weight % 7)))
        assert len(slots) == count
        share = RING_SLOTS / count
        assert max(slots.values()) <= max(1.01 * share, share + 1)
        assert min(slots.values()) >= min(0.99 * share, share - 1)


@pytest.mark.parametrize("count", [2, 3, 7, 10, 50, 100])
@pytest.mark.parametrize("spread", [2, 100, 65535])
def test_other_weights_are_balanced_within_two_per_cent(
    computer: ring.Computer, count: int, spread: int
) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        backends = members([chance.randint(1, spread) for _each in range(count)], seed)
        slots = ring.counts(computer.assign(backends))
        total = sum(each.weight for each in backends)
        for each in backends:
            share = RING_SLOTS * each.weight / total
            assert abs(slots.get(each.id, 0) - share) <= max(0.02 * share, 1), (each, share)


def changed_elsewhere(old: array[int], new: array[int], but: int) -> float:
    """Of the slots that backend ``but`` has not got before or after, the part that changed."""
    others = [(a, b) for a, b in zip(old, new) if but not in (a, b)]
    return sum(a != b for a, b in others) / len(others)


@pytest.mark.parametrize("count", [2, 3, 5, 10, 50, 100, 300])
@pytest.mark.parametrize("spread", [1, 100])
def test_one_that_leaves_or_joins_moves_few_others(
    computer: ring.Computer, count: int, spread: int
) -> None:
    for seed in range(4):
        chance = random.Random(seed)
        backends = members([chance.randint(1, spread) for _each in range(count)], seed)
        whole = computer.assign(backends)
        leaving = chance.choice(backends)
        rest = computer.assign([each for each in backends if each is not leaving])
        assert changed_elsewhere(whole, rest, leaving.id) <= 1 / count + 0.01
        share = leaving.weight / sum(each.weight for each in backends)
        assert moves.moved(whole, rest) / RING_SLOTS <= share + 1 / count + 0.01


@pytest.mark.parametrize("count", [2, 3, 10, 100])
@pytest.mark.parametrize("weight", [0.5, 0.9, 1.1, 2, 10])
def test_a_changed_weight_moves_little_more_than_it_must(
    computer: ring.Computer, count: int, weight: float
) -> None:
    for seed in range(3):
        before = members([100] * count, seed)
        after = [replace(before[0], weight=int(100 * weight)), *before[1:]]
        total = sum(each.weight for each in after)
        must = abs(after[0].weight / total - 1 / count)
        share = moves.moved(computer.assign(before), computer.assign(after)) / RING_SLOTS
        assert share <= must + 1 / count + 0.01


def test_a_ring_without_backends(computer: ring.Computer) -> None:
    assert ring.counts(computer.assign([])) == {0: RING_SLOTS}
    assert computer.assign([]) == ring.nobody()


def test_as_many_backends_as_there_may_be(computer: ring.Computer) -> None:
    backends = members([1] * ring.MAX_MEMBERS)
    assert set(ring.counts(computer.assign(backends)).values()) <= {7, 8, 9}
    with pytest.raises(ValueError, match="at most 8192 backends, not 8193"):
        computer.assign(members([1] * (ring.MAX_MEMBERS + 1)))


def test_members_that_no_ring_can_have(computer: ring.Computer) -> None:
    one = members([1])[0]
    for wrong in ({"id": 0}, {"id": 65536}, {"weight": 0}, {"weight": 65536}):
        with pytest.raises(ValueError, match="no member of a ring"):
            computer.assign([replace(one, **wrong)])
    with pytest.raises(ValueError, match=r"10\.0\.0\.2 port 8080 is twice"):
        computer.assign([one, replace(one, id=2)])


def test_a_signal_does_no_harm(computer: ring.Computer) -> None:
    backends = members([3] * 100)
    wanted = computer.assign(backends)
    before = signal.signal(signal.SIGALRM, lambda *_args: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        found = [computer.assign(backends) for _each in range(5)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert all(each == wanted for each in found)


def test_a_hundred_services_of_a_hundred_backends_take_less_than_two_seconds(
    computer: ring.Computer,
) -> None:
    services = [members([1 + n % 5 for n in range(100)], seed) for seed in range(100)]
    start = time.process_time()
    rings = [computer.assign(backends) for backends in services]
    digests = {ring.digest(*each) for each in zip(rings, services)}
    assert time.process_time() - start < 2
    assert len(digests) == 100


def test_a_pinned_program_needs_no_other_pins(computer: ring.Computer, bpffs: Path) -> None:
    pins.pin(computer.program, str(bpffs / "maglev"))
    backends = members([1, 2, 3])
    with ring.open_pinned(str(bpffs / "maglev")) as pinned:
        assert pinned.assign(backends) == computer.assign(backends)
        opened = [pinned.program, *pinned.maps.values()]
    for each in opened:
        with pytest.raises(OSError) as closed:
            os.fstat(each.number if each.number >= 0 else -1)
        assert closed.value.errno == errno.EBADF


def test_what_is_not_the_program_is_refused(computer: ring.Computer, bpffs: Path) -> None:
    with pytest.raises(Failure, match=r"rings, .*/none: No such file .* the role xdp_lb pins it"):
        with ring.open_pinned(str(bpffs / "none")):
            pass
    with maps.create("array", 4, 4, 1) as other:
        pins.pin(other, str(bpffs / "map"))
    with pytest.raises(Failure, match="/map is not this collection's program maglev"):
        with ring.open_pinned(str(bpffs / "map")):
            pass
    assert info.program(computer.program).type == "socket_filter"


def test_a_program_that_does_nothing_is_found_out(computer: ring.Computer) -> None:
    with ring.open_object(str(OBJECT)) as other:
        mixed = ring.Computer(other.program, computer.maps)
        with pytest.raises(Failure, match="stands still at 65537 slots"):
            mixed.assign(members([1, 1]))
