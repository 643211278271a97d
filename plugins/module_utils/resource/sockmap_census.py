# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a sockmap accelerator does: its counters, and who talks to whom through it right now."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..bpf import info, maps, percpu, pins, sock_diag
from ..bpf.sock_diag import TcpSocket
from ..bpf.syscall import Fd
from .attachments import cgroup_paths
from .errors import Failure

_COOKIE_BYTES = 8  # the value of such a sockhash reads as the socket's cookie


@dataclass(frozen=True)
class Talk:
    """Connections between two sockets of this host that have this in common.

    ``accelerated``: a socket at least is in the map. A control group that is not below the mount
    is empty.
    """

    client_address: str
    client_cgroup: str
    server_address: str
    server_port: int
    server_cgroup: str
    accelerated: bool


def gather(pin_dir: str) -> dict[str, Any]:
    """The accelerator that is pinned in ``pin_dir``. Raises Failure, OSError."""
    directory = os.path.join(pin_dir, "maps")
    try:
        with pins.get(os.path.join(directory, "counters")) as fd:
            counted = percpu.totals(fd)
        with pins.get(os.path.join(directory, "sockets")) as fd:
            limit = info.map_(fd).max_entries
            cookies = set(_cookies(fd))
    except (FileNotFoundError, ValueError) as error:
        raise Failure(
            f"no accelerator is pinned in {pin_dir}; the role sockmap_accelerator sets one up"
        ) from error
    talks = between(list(sock_diag.tcp()), cookies, cgroup_paths())
    return {
        "counters": counted,
        "sockets": len(cookies),
        "max_sockets": limit,
        "connections": [
            {**asdict(talk), "count": count}
            for talk, count in sorted(talks.items(), key=lambda item: (-item[1], repr(item[0])))
        ],
    }


def _cookies(fd: Fd) -> Iterator[int]:
    """The cookies of the sockets in the map. One that goes meanwhile may be missing."""
    size = info.map_(fd).key_size
    try:
        for key in maps.keys(fd, size):
            value = maps.lookup(fd, key, _COOKIE_BYTES)
            if value is not None:
                yield int.from_bytes(value, sys.byteorder)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise


def between(
    sockets: Iterable[TcpSocket], cookies: Iterable[int], cgroups: Mapping[int, str]
) -> Counter[Talk]:
    """How many connections there are of each kind, both of whose ends are among ``sockets``."""
    inside, listeners = set(cookies), set()
    ends: dict[tuple[tuple[str, int], tuple[str, int]], TcpSocket] = {}
    for each in sockets:
        if each.is_listening:
            listeners.add(each.local[1])
        else:
            ends[each.local, each.remote] = each
    found: Counter[Talk] = Counter()
    for (local, remote), one in ends.items():
        other = ends.get((remote, local))
        if other is None or (local, remote) > (remote, local):
            continue
        client, server = _roles(one, other, listeners)
        talk = Talk(
            client.local[0],
            cgroups.get(client.cgroup_id, ""),
            server.local[0],
            server.local[1],
            cgroups.get(server.cgroup_id, ""),
            one.cookie in inside or other.cookie in inside,
        )
        found[talk] += 1
    return found


def _roles(one: TcpSocket, other: TcpSocket, listeners: set[int]) -> tuple[TcpSocket, TcpSocket]:
    """Client and server: somebody listens at the server's port; else it has the lower one."""
    serves = (one.local[1] in listeners, other.local[1] in listeners)
    if serves == (True, False) or (serves[0] == serves[1] and one.local[1] < other.local[1]):
        return other, one
    return one, other
