# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Run a loaded program on given data, attached to nothing (BPF_PROG_TEST_RUN).

The kernel runs programs that take packets, and some others; for the rest it answers ENOTSUPP (524).
Layout: ``test`` of ``union bpf_attr``, include/uapi/linux/bpf.h; net/bpf/test_run.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .syscall import Buffer, Cmd, Fd, call

MIN_PACKET = 14  # ETH_HLEN: the kernel takes no shorter packet
MAX_PACKET = 1 << 16  # room for what comes out; the kernel limits what goes in (EINVAL)

_ATTR = struct.Struct("=IIIIQQIIIIQQIII4x")
_XDP_MD = struct.Struct("=6I")  # struct xdp_md


@dataclass(frozen=True)
class Run:
    """What became of the data. ``duration`` is the mean of all runs, in ns."""

    verdict: int
    data: bytes
    context: bytes
    duration: int


def run(
    program: Fd,
    data: bytes,
    repeat: int = 1,
    context: bytes = b"",
    want_data: bool = True,
    flags: int = 0,
    batch: int = 0,
) -> Run:
    """Run the program ``repeat`` times on ``data``, each run on what the one before has left.

    ``context`` is the program's context struct (see ``xdp_context``; for XDP since Linux 5.15);
    ``flags`` and ``batch`` are BPF_F_TEST_* bits and the batch size of live frames (5.18). Raises
    OSError: EINVAL for data too short or too long, EINTR when a signal ended it early, 524 for a
    program type that cannot be run.
    """
    given = Buffer(data)
    taken = Buffer(MAX_PACKET if want_data else 1)
    context_in, context_out = Buffer(context), Buffer(max(len(context), 1))
    attr = bytearray(
        _ATTR.pack(
            program.number,
            0,  # retval
            len(data),
            taken.size if want_data else 0,
            given.address,
            taken.address if want_data else 0,
            repeat,
            0,  # duration
            len(context),
            len(context),
            context_in.address if context else 0,
            context_out.address if context else 0,
            flags,
            0,  # cpu
            batch,
        )
    )
    call(Cmd.PROG_TEST_RUN, attr, f"run a program {repeat} times on {len(data)} bytes")
    answer = _ATTR.unpack(attr)
    return Run(
        verdict=answer[1],
        data=taken.content[: answer[3]] if want_data else b"",
        context=context_out.content[: len(context)],
        duration=answer[7],
    )


def xdp_context(size: int, ifindex: int, queue: int = 0) -> bytes:
    """A ``struct xdp_md`` for a packet of ``size`` bytes that came in on this interface and queue.

    The interface is one of the current network namespace whose queues take XDP (ENODEV, EINVAL).
    """
    return _XDP_MD.pack(0, size, 0, ifindex, queue, 0)
