# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Which backend each of a service's 65,537 slots belongs to: Maglev, computed in the kernel.

Python turns identities into permutations and the program ``maglev`` fills the slots, a few hundred
times faster than Python could; bpf/xdp_lb/maglev.h is what they agree on. Everything that counts
comes from a backend's address, port and weight, so every balancer that is given the same backends,
in any order and under any ids, computes the same ring.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import struct
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..bpf import info, libbpf, maps, pins, test_run
from ..bpf.syscall import Fd
from ..resource.errors import Failure, from_os_error
from .layout import RING_SLOTS, Address, family_of, pack_address, raw_port

PROGRAM = "maglev"
MAX_MEMBERS = 8192  # MAGLEV_MEMBERS
MAX_WEIGHT = 65535

_MEMBER = struct.Struct("=IIIII")  # struct member
_PROGRESS = struct.Struct("=IIII")  # struct progress
_SLOTS_BYTES = 2 * RING_SLOTS  # struct assignment
_MAPS = {
    "maglev_progress": _PROGRESS.size,
    "maglev_members": _MEMBER.size * MAX_MEMBERS,
    "maglev_slots": _SLOTS_BYTES,
}
_KEY = bytes(4)
_PACKET = bytes(64)  # the program does not look at it
# With 256 steps a run (STEPS of maglev.bpf.c) one call makes more steps than there are slots and
# members together, so each call must fill at least one slot.
_REPEAT = 512


@dataclass(frozen=True)
class Member:
    """A backend in the ring: ``id`` is this host's, the rest is the same everywhere."""

    id: int  # 1 to 65535
    address: Address
    port: int
    weight: int  # 1 to MAX_WEIGHT


def identity(address: Address, port: int) -> bytes:
    """What a backend is known by on every balancer: family, address and port, 19 bytes."""
    return bytes((family_of(address),)) + pack_address(address) + raw_port(port)


def digest(assignment: array[int], members: Iterable[Member]) -> str:
    """SHA-256, in hex, over the identities of the backends in slot order.

    It is equal where the rings are equal, whatever the ids. ``members`` are at least those that the
    ring names; a slot without a backend counts as 19 zero bytes. Raises KeyError for one it lacks.
    """
    names = {member.id: identity(member.address, member.port) for member in members}
    names[0] = bytes(19)
    return hashlib.sha256(b"".join(map(names.__getitem__, assignment))).hexdigest()


def counts(assignment: array[int]) -> dict[int, int]:
    """How many slots each backend has, by id."""
    return dict(Counter(assignment))


def nobody() -> array[int]:
    """The slots of a service that has no backend."""
    return array("H", bytes(_SLOTS_BYTES))


@dataclass(frozen=True)
class Computer:
    """The program and its maps; they are open while the context that made it lasts."""

    program: Fd
    maps: dict[str, Fd]

    def assign(self, members: Iterable[Member]) -> array[int]:
        """The id of the backend that each slot belongs to, in proportion to the weights.

        Only one may compute at a time: hold the host's lock. Raises ValueError for members that no
        ring can have, Failure when the program does not do its work.
        """
        ordered = _in_order(members)
        if not ordered:
            return nobody()
        price = max(member.weight for member in ordered)
        rows = [_row(member, index == 0) for index, member in enumerate(ordered)]
        self._write("maglev_members", b"".join(rows).ljust(_MAPS["maglev_members"], b"\0"))
        self._write("maglev_slots", bytes(_SLOTS_BYTES))
        self._write("maglev_progress", _PROGRESS.pack(RING_SLOTS, 0, len(ordered), price))
        left = RING_SLOTS
        while left:
            before, left = left, self._run()
            if left >= before:
                raise Failure(
                    f"the program {PROGRAM} that computes rings stands still at {left} slots: "
                    "something else uses it at the same time, or it is not the one of this "
                    "collection; load it again (role xdp_lb)"
                )
        return array("H", self._read("maglev_slots"))

    def _run(self) -> int:
        """Make some steps and return how many slots are left."""
        interrupted = True
        while interrupted:
            try:
                test_run.run(self.program, _PACKET, _REPEAT, want_data=False)
                interrupted = False
            except OSError as error:  # a signal's; what was done so far is in the maps
                if error.errno != errno.EINTR:
                    raise from_os_error(error, f"run the program {PROGRAM}") from error
        left: int = _PROGRESS.unpack(self._read("maglev_progress"))[0]
        return left

    def _write(self, name: str, value: bytes) -> None:
        maps.put(self.maps[name], _KEY, value)  # room of its own, of no meaning afterwards

    def _read(self, name: str) -> bytes:
        return maps.lookup(self.maps[name], _KEY, _MAPS[name]) or b""


def _in_order(members: Iterable[Member]) -> list[Member]:
    """The members in the order of their turns: of their permutations, then identities."""
    named = sorted((identity(each.address, each.port), each.id, each) for each in members)
    found = [member for _name, _id, member in named]
    if len(found) > MAX_MEMBERS:
        raise ValueError(f"a ring has at most {MAX_MEMBERS} backends, not {len(found)}")
    for member in found:
        if not (1 <= member.id <= 0xFFFF and 1 <= member.weight <= MAX_WEIGHT):
            raise ValueError(f"{member} is no member of a ring")
    for (name, _id, _member), (after, _other, double) in zip(named, named[1:]):
        if name == after:
            raise ValueError(f"{double.address} port {double.port} is twice in one ring")
    return found


def _row(member: Member, first: bool) -> bytes:
    """``struct member``; who has the first turn has earned for it, the others earn on the way."""
    hashed = hashlib.blake2b(identity(member.address, member.port), digest_size=16).digest()
    start, stride = struct.unpack(">QQ", hashed)
    return _MEMBER.pack(
        start % RING_SLOTS,
        stride % (RING_SLOTS - 1) + 1,
        member.weight,
        member.weight if first else 0,
        member.id,
    )


@contextlib.contextmanager
def open_pinned(path: str) -> Iterator[Computer]:
    """Use the program pinned at ``path``, with the maps that it was loaded with.

    Raises Failure when there is none, or when it is another program.
    """
    advice = "the role xdp_lb pins it beside the load balancer; run that first, or set pin_dir"
    try:
        opened = pins.get(path)
    except OSError as error:
        raise from_os_error(
            error, f"open the program that computes rings, {path}", advice
        ) from error
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(opened)
        found = _own_maps(stack, program, path) if pins.kind(program) == "program" else {}
        if found.keys() != _MAPS.keys():
            raise Failure(f"{path} is not this collection's program {PROGRAM}; {advice}")
        yield Computer(program, found)


def _own_maps(stack: contextlib.ExitStack, program: Fd, path: str) -> dict[str, Fd]:
    found = {}
    for map_id in info.program(program).map_ids:
        opened = stack.enter_context(info.open_map(map_id))
        about = info.map_(opened)
        if about.name in _MAPS:
            if about.value_size != _MAPS[about.name]:
                raise Failure(
                    f"{path} is of another version of this collection: its map {about.name} has "
                    f"values of {about.value_size} bytes, not {_MAPS[about.name]}; "
                    "load the one that came with this version (role xdp_lb)"
                )
            found[about.name] = opened
    return found


@contextlib.contextmanager
def open_object(path: str) -> Iterator[Computer]:
    """Load maglev.bpf.o for as long as the context lasts; nothing is pinned. Raises LoadError."""
    with libbpf.open_object(path) as opened, contextlib.ExitStack() as stack:
        opened.load()
        program = stack.enter_context(opened.program_fd(PROGRAM))
        yield Computer(program, {name: stack.enter_context(opened.map_fd(name)) for name in _MAPS})
