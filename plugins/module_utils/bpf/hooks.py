# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Hooks that hold programs directly, without a link ("legacy"), and what hangs at a hook."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from dataclasses import dataclass

from . import info, journal, names
from .syscall import Buffer, Cmd, Fd, bpf, call

# include/uapi/linux/bpf.h, attach_flags of BPF_PROG_ATTACH; without any: exclusive.
F_ALLOW_OVERRIDE = 1 << 0
F_ALLOW_MULTI = 1 << 1
F_REPLACE = 1 << 2
_F_BEFORE = 1 << 3  # BPF_F_BEFORE; of cgroups since Linux 6.17
_MODE = F_ALLOW_OVERRIDE | F_ALLOW_MULTI

QUERY_EFFECTIVE = 1 << 0  # BPF_F_QUERY_EFFECTIVE: what ancestors hand down as well


@dataclass(frozen=True)
class Attached:
    """What a query of a hook answers.

    ``flags`` are the attach_flags that the hook was first used with (cgroup only). ``link_ids`` run
    beside ``prog_ids``, 0 for a program that no link holds; only TCX and netkit tell them.
    """

    prog_ids: tuple[int, ...]
    flags: int = 0
    link_ids: tuple[int, ...] = ()
    revision: int = 0  # 0 where the kernel keeps none


def _number(attach_type: str) -> int:
    return names.number_of(names.ATTACH_TYPES, attach_type, names.ATTACH_TYPE_ALIASES)


def query(target: int, attach_type: str, flags: int = 0, link_ids: bool = False) -> Attached:
    """What is attached at the hook of ``target``, a descriptor's number or an ifindex, in order.

    ``union bpf_attr.query``, always passed whole because newer kernels write the revision without
    asking for its room. Raises OSError: EINVAL where the kernel cannot tell (sockmaps before 5.18).
    """
    room = 64  # BPF_CGROUP_MAX_PROGS; an effective list may be longer
    while True:
        progs, links = Buffer(4 * room), Buffer(4 * room)
        attr = bytearray(
            struct.pack(
                "=IIIIQIIQQQQ",
                *(target, _number(attach_type), flags, 0, progs.address, room, 0),
                *(0, links.address if link_ids else 0, 0, 0),
            )
        )
        try:
            call(Cmd.PROG_QUERY, attr, f"query {attach_type}")
        except OSError as error:
            if error.errno == errno.ENOSPC and room < 4096:
                room *= 2
                continue
            raise
        attach_flags, count = struct.unpack_from("=I8xI", attr, 12)
        return Attached(
            struct.unpack_from(f"={count}I", progs.content),
            attach_flags,
            struct.unpack_from(f"={count}I", links.content) if link_ids else (),
            struct.unpack_from("=Q", attr, 56)[0],
        )


def attach(
    target: int, prog: Fd, attach_type: str, flags: int = 0, replaced: Fd | None = None
) -> None:
    """Attach ``prog`` directly; it stays until it is detached or the target goes away.

    With ``replaced`` (which implies F_REPLACE; cgroup, F_ALLOW_MULTI) it atomically takes that
    program's place, ENOENT when that one is not there. A cgroup without F_ALLOW_MULTI and a sockmap
    silently give up the program they had. ``union bpf_attr``, BPF_PROG_ATTACH.
    """
    back = _way_back(target, prog, attach_type, replaced)
    _attach(target, prog, attach_type, flags, replaced)
    journal.undo(f"take back what was attached to {attach_type}", back)


def _attach(
    target: int, prog: Fd, attach_type: str, flags: int, replaced: Fd | None = None
) -> None:
    values = [target, prog.number, _number(attach_type), flags]
    if replaced is not None:
        values[3] |= F_REPLACE
        values.append(replaced.number)
    bpf(Cmd.PROG_ATTACH, "i" + "I" * (len(values) - 1), *values, doing=f"attach to {attach_type}")


def detach(target: int, prog: Fd, attach_type: str) -> None:
    """Detach ``prog`` from where it was attached directly. ENOENT when it is not there.

    Beware: a cgroup without F_ALLOW_MULTI detaches whatever it has, so query it first.
    """
    back = _way_to_return(target, prog, attach_type)
    _detach(target, prog, attach_type)
    journal.undo(f"attach to {attach_type} again", back)


def _detach(target: int, prog: Fd, attach_type: str) -> None:
    bpf(
        Cmd.PROG_DETACH,
        "III",
        target,
        prog.number,
        _number(attach_type),
        doing=f"detach from {attach_type}",
    )


def _way_back(target: int, prog: Fd, attach_type: str, replaced: Fd | None) -> Callable[[], object]:
    """How to undo an attachment that is about to be made."""
    if not journal.records():
        return _nothing
    place, new = _hold_target(target), journal.hold(prog)
    before = _before(target, attach_type)
    if replaced is not None:
        old = journal.hold(replaced)
        return lambda: _attach(place, old, attach_type, before.flags & _MODE, new)
    if before.prog_ids and not before.flags & F_ALLOW_MULTI:
        with info.open_program(before.prog_ids[0]) as there:
            old = journal.hold(there)
        return lambda: _attach(place, old, attach_type, before.flags & _MODE)
    return lambda: _detach(place, new, attach_type)


def _way_to_return(target: int, prog: Fd, attach_type: str) -> Callable[[], object]:
    """How to undo a detachment that is about to be made.

    Among several programs of a cgroup it gets its place back as long as the kernel can be told of
    the one that follows: not one held by a link, and only since Linux 6.17.
    """
    if not journal.records():
        return _nothing
    place, old = _hold_target(target), journal.hold(prog)
    before = _before(target, attach_type)
    ours, there = info.program(prog).id, before.prog_ids
    following = there[there.index(ours) + 1 :] if ours in there else ()
    if not before.flags & F_ALLOW_MULTI or not following:
        return lambda: _attach(place, old, attach_type, before.flags & _MODE)
    with info.open_program(following[0]) as next_one:
        anchor = journal.hold(next_one)

    def back() -> None:
        flags = before.flags & _MODE
        values = (place, old.number, _number(attach_type), flags | _F_BEFORE, 0, anchor.number)
        try:
            bpf(Cmd.PROG_ATTACH, "iIIIII", *values, doing=f"attach to {attach_type}")
        except OSError:
            _attach(place, old, attach_type, flags)

    return back


def _nothing() -> None:
    """The way back that nobody asks for."""


def _hold_target(target: int) -> int:
    return journal.hold(Fd(target)).number


def _before(target: int, attach_type: str) -> Attached:
    """What is attached now; nothing where the kernel cannot tell (sockmaps before 5.18)."""
    try:
        return query(target, attach_type)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return Attached(())
        raise
