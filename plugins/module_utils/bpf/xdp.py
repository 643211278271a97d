# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""XDP programs of an interface, over netlink: who is attached in which mode, attach and detach.

``IFLA_XDP`` of include/uapi/linux/if_link.h. Every change names the program that it expects
(XDP_FLAGS_REPLACE, Linux 5.7), because the kernel would replace another one without a word.
"""

from __future__ import annotations

import errno
import struct

from . import journal, links, netns, rtnetlink
from .rtnetlink import Interface
from .syscall import Fd

# XDP_FLAGS_* and IFLA_XDP_*_PROG_ID of the modes.
_FLAG = {"generic": 1 << 1, "native": 1 << 2, "offload": 1 << 3}
_PROG_ID = {"native": 5, "generic": 6, "offload": 7}
_F_REPLACE = 1 << 4
_FD, _FLAGS, _EXPECTED_FD = 1, 3, 8

MODES = tuple(_PROG_ID)

# Generic netlink, include/uapi/linux/genetlink.h and linux/netdev.h.
_CONTROL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_DEV_GET, _DEV_IFINDEX, _DEV_FEATURES, _BASIC = 1, 1, 3, 1 << 0


def attached(interface: Interface) -> dict[str, int]:
    """Mode to program id, for each mode in which the interface has a program."""
    nest = rtnetlink.attributes(interface.xdp)
    return {mode: rtnetlink.as_u32(nest[kind]) for mode, kind in _PROG_ID.items() if kind in nest}


def set_program(ifindex: int, mode: str, new: Fd | None, expected: Fd | None) -> None:
    """Put ``new`` (None: nothing) in the place of ``expected`` (None: nothing), or change nothing.

    Raises OSError: EEXIST when another program is there or another mode is in use, EBUSY when a
    link holds the hook; what the driver says is in its text.
    """
    _set_program(ifindex, mode, new, expected)
    if new or expected:
        back = expected and journal.hold(expected), new and journal.hold(new)
        doing = f"set the {mode} XDP program back"
        netns.undo(doing, lambda: _set_program(ifindex, mode, *back))


def _set_program(ifindex: int, mode: str, new: Fd | None, expected: Fd | None) -> None:
    nest = rtnetlink.nest(
        rtnetlink.XDP,
        rtnetlink.u32(_FD, new.number if new else -1),
        rtnetlink.u32(_FLAGS, _FLAG[mode] | _F_REPLACE),
        rtnetlink.u32(_EXPECTED_FD, expected.number if expected else -1),
    )
    body = rtnetlink.interface_header(ifindex) + nest
    rtnetlink.request(rtnetlink.SETLINK, 0, body, f"set the {mode} XDP program")


def held_by_link(ifindex: int, mode: str) -> bool:
    """Whether the program attached in this mode is held by a link. Changes nothing.

    A link tells only its ifindex, which other network namespaces have too. So the kernel is asked
    to replace nothing by nothing, and refuses: for a link with EBUSY, else with EEXIST
    (dev_xdp_attach, net/core/dev.c).
    """
    try:
        _set_program(ifindex, mode, None, None)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        if error.errno != errno.EEXIST:
            raise
    return False


def create_link(prog: Fd, ifindex: int, mode: str) -> Fd:
    """Attach with a new link. Raises OSError with the driver's words (see ``set_program``)."""
    try:
        return links.create(prog, ifindex, "xdp", _FLAG[mode])
    except OSError as error:
        words = _why_not(prog, ifindex, mode, error.errno or 0)
        raise OSError(error.errno, words or error.strerror, error.filename) from error


def _why_not(prog: Fd, ifindex: int, mode: str, code: int) -> str:
    """What netlink says to the same attempt, because a link tells nothing beyond the errno."""
    try:
        _set_program(ifindex, mode, prog, None)
    except OSError as error:
        return error.strerror or "" if error.errno == code else ""
    _set_program(ifindex, mode, None, prog)
    return ""


def native_support(ifindex: int) -> bool | None:
    """Whether the driver takes native XDP as the interface is now; None before Linux 6.3."""
    try:
        body = struct.pack("=BBH", _GETFAMILY, 1, 0) + rtnetlink.text(_FAMILY_NAME, "netdev")
        answer = _generic(_CONTROL, body)
        family = struct.unpack_from("=H", answer[_FAMILY_ID])[0]
        body = struct.pack("=BBH", _DEV_GET, 1, 0) + rtnetlink.u32(_DEV_IFINDEX, ifindex)
        features = _generic(family, body).get(_DEV_FEATURES)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):
            return None
        raise
    return bool(struct.unpack("=Q", features)[0] & _BASIC) if features else None


def _generic(family: int, body: bytes) -> dict[int, bytes]:
    answer = rtnetlink.request(family, 0, body, "ask for XDP features", rtnetlink.GENERIC)[0]
    return rtnetlink.attributes(answer[4:])
