# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A program that soils the room before a packet, and then runs another.

BPF_PROG_TEST_RUN hands out zeroed memory; a driver does not. What a program takes for a header that
it made room for and did not write shows in what comes out only when that room held something.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from . import maps, names
from .syscall import Buffer, Cmd, Fd, bpf

# XDP_PACKET_HEADROOM (256) less what adjust_head keeps free for struct xdp_frame.
_SIZE = 208

_F_XDP_HAS_FRAGS = 1 << 5  # BPF_F_XDP_HAS_FRAGS, include/uapi/linux/bpf.h; 5.18
_TAIL_CALL, _ADJUST_HEAD = 12, 44  # enum bpf_func_id
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD
_R0, _R1, _R2, _R3, _R4, _R6 = 0, 1, 2, 3, 4, 6


@contextmanager
def soiled(program: Fd) -> Iterator[Fd | None]:
    """An XDP program that fills the headroom with 0xFF and continues in ``program``.

    None where the kernel refuses the tail call. Raises OSError, EPERM without the right to load.
    """
    # A tail call joins programs of the same flags and expected attach type, which nothing tells.
    for flags in (0, _F_XDP_HAS_FRAGS):
        for attach_type in ("xdp", ""):
            with ExitStack() as stack:
                try:
                    first = _joined(stack, program, flags, attach_type)
                except OSError as error:
                    if error.errno == errno.EPERM:
                        raise
                    continue
                yield first
                return
    yield None


def _joined(stack: ExitStack, program: Fd, flags: int, attach_type: str) -> Fd:
    """The kernel empties an array of programs when its last descriptor is closed."""
    chain = stack.enter_context(maps.create("prog_array", 4, 4, 1, name="fleet_tested"))
    code = _instructions(chain)
    instructions, license_ = Buffer(code), Buffer(b"GPL\0")
    first = Fd(
        bpf(
            Cmd.PROG_LOAD,
            "IIQQIIQII16sII",
            *(names.PROG_TYPES.index("xdp"), len(code) // 8, instructions.address),
            *(license_.address, 0, 0, 0, 0, flags, b"fleet_soil", 0),
            names.number_of(names.ATTACH_TYPES, attach_type) if attach_type else 0,
            doing="load a program that soils the headroom",
        )
    )
    stack.enter_context(first)
    maps.update(chain, bytes(4), struct.pack("=I", program.number))
    return first


def _instructions(chain: Fd) -> bytes:
    """Struct bpf_insn each: u8 code, u8 registers, s16 offset, s32 immediate."""
    body: list[bytes | str] = [
        _insn(0xBF, _R6, _R1),  # the context
        *_adjust_head(-_SIZE),
        "out if r0",
        _insn(0x61, _R2, _R6, 0),  # data
        _insn(0x61, _R3, _R6, 4),  # data_end
        _insn(0xBF, _R4, _R2),
        _insn(0x07, _R4, immediate=_SIZE),
        "out if r4 > r3",
        *(_insn(0x7A, _R2, offset=at, immediate=-1) for at in range(0, _SIZE, 8)),
        *_adjust_head(_SIZE),
        "out if r0",
        _insn(0xBF, _R1, _R6),
        _insn(0x18, _R2, _MAP_FD, immediate=chain.number),
        _insn(0),  # the second half of a 64-bit immediate
        _insn(0xB7, _R3),
        _insn(0x85, immediate=_TAIL_CALL),
        _insn(0xB7, _R0),  # out: XDP_ABORTED
        _insn(0x95),
    ]
    out = len(body) - 2
    jumps = {"out if r0": (0x55, _R0, 0), "out if r4 > r3": (0x2D, _R4, _R3)}
    return b"".join(
        item if isinstance(item, bytes) else _insn(*jumps[item], offset=out - at - 1)
        for at, item in enumerate(body)
    )


def _adjust_head(by: int) -> list[bytes]:
    set_up = [_insn(0xBF, _R1, _R6), _insn(0xB7, _R2, immediate=by)]
    return [*set_up, _insn(0x85, immediate=_ADJUST_HEAD)]


def _insn(code: int, to: int = 0, of: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | of << 4, offset, immediate)
