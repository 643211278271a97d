# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The clsact qdisc of an interface and the BPF filters in it, over netlink.

``struct tcmsg`` and TCA_* of include/uapi/linux/rtnetlink.h, TCA_BPF_* of linux/pkt_cls.h. Handles
and priorities are plain numbers; the priority is what tc(8) calls pref.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from . import info, journal, netns, rtnetlink
from .syscall import Fd

_NEWQDISC, _DELQDISC, _GETQDISC = 36, 37, 38
_NEWTFILTER, _DELTFILTER, _GETTFILTER = 44, 45, 46
_NEWCHAIN, _DELCHAIN, _GETCHAIN = 100, 101, 102
_KIND, _OPTIONS, _CHAIN = 1, 2, 11
_FD, _NAME, _FLAGS, _TAG, _ID = 6, 7, 8, 10, 11
_ACT_DIRECT = 1 << 0  # TCA_BPF_FLAG_ACT_DIRECT

# include/uapi/linux/pkt_sched.h
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000  # TC_H_CLSACT, and its major number alone
_PARENT = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}

_ALL_PROTOCOLS = 0x0003  # ETH_P_ALL

DIRECTIONS = tuple(_PARENT)


@dataclass(frozen=True)
class Filter:
    """One filter. ``protocol`` is an ETH_P_* number in host byte order; ``prog_id`` 0: no eBPF."""

    kind: str
    priority: int
    protocol: int
    chain: int
    handle: int
    prog_id: int = 0
    name: str = ""
    direct_action: bool = False

    @property
    def for_all_protocols(self) -> bool:
        """Whether it sees every packet, as the filters made here do."""
        return self.protocol == _ALL_PROTOCOLS


def qdisc(ifindex: int) -> str:
    """The kind of the qdisc at the ingress hook: ``clsact``, ``ingress`` or none."""
    for answer in rtnetlink.request(_GETQDISC, rtnetlink.F_DUMP, _header(0), "list qdiscs"):
        index, _handle, parent = struct.unpack_from("=iII", answer, 4)
        if (index, parent) == (ifindex, _CLSACT):
            return rtnetlink.as_text(rtnetlink.attributes(answer[20:]).get(_KIND, b""))
    return ""


def add_clsact(ifindex: int) -> None:
    """Give the interface a clsact qdisc. EEXIST when it has one, or an ingress qdisc."""
    flags = rtnetlink.F_CREATE | rtnetlink.F_EXCL
    body = _header(ifindex, _CLSACT_HANDLE, _CLSACT) + rtnetlink.text(_KIND, "clsact")
    rtnetlink.request(_NEWQDISC, flags, body, "add the clsact qdisc")
    netns.undo("delete the clsact qdisc", lambda: _delete_clsact(ifindex))


def delete_clsact(ifindex: int) -> None:
    """Take the clsact qdisc away, with all filters in it. ENOENT when there is none.

    A journal brings the qdisc and its chains back, not the filters: delete them before.
    """
    there = [
        (direction, index)
        for direction in (DIRECTIONS if journal.records() else ())
        for index in chains(ifindex, direction)
        if index
    ]
    _delete_clsact(ifindex)

    def back() -> None:
        add_clsact(ifindex)
        for direction, index in there:
            add_chain(ifindex, direction, index)

    netns.undo("add the clsact qdisc again", back)


def _delete_clsact(ifindex: int) -> None:
    body = _header(ifindex, _CLSACT_HANDLE, _CLSACT) + rtnetlink.text(_KIND, "clsact")
    rtnetlink.request(_DELQDISC, 0, body, "delete the clsact qdisc")


def filters(ifindex: int, direction: str) -> list[Filter]:
    """All filters of the direction, in the order in which they run; none without a qdisc."""
    body = _header(ifindex, 0, _PARENT[direction])
    answers = rtnetlink.request(_GETTFILTER, rtnetlink.F_DUMP, body, f"list {direction} filters")
    # The kernel also lists each priority itself, with handle 0.
    return [each for each in map(_filter, answers) if each.handle]


def _filter(body: bytes) -> Filter:
    handle, _parent, packed = struct.unpack_from("=III", body, 8)
    found = rtnetlink.attributes(body[20:])
    kind = rtnetlink.as_text(found.get(_KIND, b""))
    options = rtnetlink.attributes(found.get(_OPTIONS, b"")) if kind == "bpf" else {}
    return Filter(
        kind,
        packed >> 16,
        socket.ntohs(packed & 0xFFFF),
        rtnetlink.as_u32(found.get(_CHAIN)),
        handle,
        rtnetlink.as_u32(options.get(_ID)),
        rtnetlink.as_text(options.get(_NAME, b"")),
        bool(rtnetlink.as_u32(options.get(_FLAGS)) & _ACT_DIRECT),
    )


def add_filter(
    ifindex: int, direction: str, priority: int, handle: int, prog: Fd, name: str
) -> None:
    """Add a direct-action filter for all protocols. EEXIST when the handle is taken."""
    flags = rtnetlink.F_CREATE | rtnetlink.F_EXCL
    body = _filter_header(ifindex, direction, priority, handle) + _program(prog, name)
    rtnetlink.request(_NEWTFILTER, flags, body, f"add the {direction} filter")
    netns.undo(
        f"delete the {direction} filter",
        lambda: _delete_filter(ifindex, direction, priority, handle),
    )


def replace_filter(
    ifindex: int, direction: str, priority: int, handle: int, prog: Fd, name: str
) -> None:
    """Give the filter another program; each packet meets the old one or the new one.

    The kernel exchanges them in its list (list_replace_rcu in cls_bpf_change, net/sched/cls_bpf.c)
    but cannot be told which program to expect. ENOENT when there is no such filter.
    """
    before = _hold_program(ifindex, direction, priority, handle)
    body = _filter_header(ifindex, direction, priority, handle)
    doing = f"replace the {direction} filter"
    rtnetlink.request(_NEWTFILTER, 0, body + _program(prog, name), doing)
    if before is not None:
        old = body + _program(*before)
        netns.undo(
            f"put the {direction} filter back",
            lambda: rtnetlink.request(_NEWTFILTER, 0, old, doing),
        )


def delete_filter(ifindex: int, direction: str, priority: int, handle: int) -> None:
    """Delete the filter. ENOENT when there is none."""
    before = _hold_program(ifindex, direction, priority, handle)
    _delete_filter(ifindex, direction, priority, handle)
    if before is not None:
        flags = rtnetlink.F_CREATE | rtnetlink.F_EXCL
        old = _filter_header(ifindex, direction, priority, handle) + _program(*before)
        doing = f"add the {direction} filter again"
        netns.undo(doing, lambda: rtnetlink.request(_NEWTFILTER, flags, old, doing))


def _hold_program(
    ifindex: int, direction: str, priority: int, handle: int
) -> tuple[Fd, str, int] | None:
    """The filter's program, name and flags, kept while something records."""
    if journal.records():
        for found in filters(ifindex, direction):
            place = (found.priority, found.handle, found.chain)
            if place == (priority, handle, 0) and found.prog_id:
                with info.open_program(found.prog_id) as fd:
                    held = journal.hold(fd)
                return held, found.name, _ACT_DIRECT if found.direct_action else 0
    return None


def _delete_filter(ifindex: int, direction: str, priority: int, handle: int) -> None:
    body = _filter_header(ifindex, direction, priority, handle) + rtnetlink.text(_KIND, "bpf")
    rtnetlink.request(_DELTFILTER, 0, body, f"delete the {direction} filter")


def chains(ifindex: int, direction: str) -> list[int]:
    """The indices of the chains of the direction; none without a qdisc."""
    body = _header(ifindex, 0, _PARENT[direction])
    try:
        answers = rtnetlink.request(_GETCHAIN, rtnetlink.F_DUMP, body, "list chains")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINVAL):
            return []
        raise
    return [rtnetlink.as_u32(rtnetlink.attributes(each[20:]).get(_CHAIN)) for each in answers]


def add_chain(ifindex: int, direction: str, index: int) -> None:
    """Add an empty chain, which no packet enters unless a filter sends it there."""
    body = _header(ifindex, 0, _PARENT[direction]) + rtnetlink.u32(_CHAIN, index)
    flags = rtnetlink.F_CREATE | rtnetlink.F_EXCL
    rtnetlink.request(_NEWCHAIN, flags, body, f"add chain {index}")
    doing = f"delete chain {index}"
    netns.undo(doing, lambda: rtnetlink.request(_DELCHAIN, 0, body, doing))


def _header(ifindex: int, handle: int = 0, parent: int = 0, packed: int = 0) -> bytes:
    return struct.pack("=BBHiIII", socket.AF_UNSPEC, 0, 0, ifindex, handle, parent, packed)


def _filter_header(ifindex: int, direction: str, priority: int, handle: int) -> bytes:
    packed = priority << 16 | socket.htons(_ALL_PROTOCOLS)
    return _header(ifindex, handle, _PARENT[direction], packed)


def _program(prog: Fd, name: str, flags: int = _ACT_DIRECT) -> bytes:
    return rtnetlink.text(_KIND, "bpf") + rtnetlink.nest(
        _OPTIONS,
        rtnetlink.u32(_FD, prog.number),
        rtnetlink.text(_NAME, name),
        rtnetlink.u32(_FLAGS, flags),
    )
