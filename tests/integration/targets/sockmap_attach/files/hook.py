# SPDX-License-Identifier: GPL-3.0-or-later
"""What libbpf says of a pinned socket map's hook, as JSON.

``hook.py MAP`` prints program ids and socket count; ``hook.py MAP PROG LINK`` attaches by a link.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

SK_MSG_VERDICT = 7  # enum bpf_attach_type

libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)


def require(result: int) -> int:
    """The result, unless libbpf reports an error."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def opened(pin: str) -> int:
    """A descriptor of what is pinned."""
    return require(libbpf.bpf_obj_get(os.fsencode(pin)))


def program_ids(target: int) -> list[int]:
    """The programs at the map's hook."""
    ids, count = (ctypes.c_uint32 * 4)(), ctypes.c_uint32(4)
    flags = ctypes.c_uint32()
    require(
        libbpf.bpf_prog_query(
            target, SK_MSG_VERDICT, 0, ctypes.byref(flags), ids, ctypes.byref(count)
        )
    )
    return list(ids[: count.value])


def attach(target: int, prog: str, link: str) -> None:
    """Attach a pinned program by a link, and pin that."""
    created = require(libbpf.bpf_link_create(opened(prog), target, SK_MSG_VERDICT, None))
    require(libbpf.bpf_obj_pin(created, os.fsencode(link)))


if __name__ == "__main__":
    map_fd = opened(sys.argv[1])
    if sys.argv[2:]:
        attach(map_fd, *sys.argv[2:])
    print(json.dumps(program_ids(map_fd)))
