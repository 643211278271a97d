# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody else does with libbpf: ``update LINK PROG`` and ``exchange CGROUP PROG LINK``."""

from __future__ import annotations

import ctypes
import os
import sys

CGROUP_SOCK_OPS = 3  # enum bpf_attach_type

libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


def require(result: int) -> int:
    """The result, unless libbpf reports an error."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(pin: str) -> int:
    """A descriptor of what is pinned."""
    return require(libbpf.bpf_obj_get(os.fsencode(pin)))


def update(link: str, prog: str) -> None:
    """Put another program into a pinned link."""
    require(libbpf.bpf_link_update(opened(link), opened(prog), None))


def exchange(directory: str, prog: str, link: str) -> None:
    """Exchange a direct attachment for a link, and pin that."""
    cgroup = os.open(directory, os.O_RDONLY)
    program = opened(prog)
    require(libbpf.bpf_prog_detach2(program, cgroup, CGROUP_SOCK_OPS))
    created = require(libbpf.bpf_link_create(program, cgroup, CGROUP_SOCK_OPS, None))
    require(libbpf.bpf_obj_pin(created, os.fsencode(link)))


if __name__ == "__main__":
    {"update": update, "exchange": exchange}[sys.argv[1]](*sys.argv[2:])
