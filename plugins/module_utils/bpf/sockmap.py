# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Socket maps (SOCKMAP, SOCKHASH): their hooks, and the sockets that are in them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from . import hooks, info, journal, links, maps
from .info import MapInfo
from .syscall import Fd

MAP_TYPES = ("sockmap", "sockhash")
ATTACH_TYPES = (
    "sk_msg_verdict",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "sk_skb_verdict",
)
_COOKIE_BYTES = 8  # a value of this size reads as the socket's cookie, one of 4 bytes not at all


def attached(map_fd: Fd, attach_type: str) -> int | None:
    """The id of the program at the map's hook, 0 for none; None before Linux 5.18, which is silent.

    Raises OSError.
    """
    try:
        found = hooks.query(map_fd.number, attach_type).prog_ids
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise
    return found[0] if found else 0


def accepts(program: Fd, attach_type: str) -> bool:
    """Whether the program fits the hook: attaches it to a map of no sockets, which is dropped."""
    with journal.paused(), maps.create("sockmap", 4, 4, 1, name="fleet_scratch") as scratch:
        try:
            hooks.attach(scratch.number, program, attach_type)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
    return True


def accepts_link(program: Fd, attach_type: str) -> bool:
    """The same for a link; False where ``accepts`` is True means Linux before 6.10."""
    with journal.paused(), maps.create("sockmap", 4, 4, 1, name="fleet_scratch") as scratch:
        try:
            links.create(program, scratch.number, attach_type).close()
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
    return True


def sockets(map_fd: Fd, about: MapInfo) -> int | None:
    """How many sockets the map holds; None where the kernel does not show it.

    It does not for a SOCKMAP with values of 4 bytes. In a map that changes all the time the number
    is a lower bound.
    """
    if about.type == "sockmap" and about.value_size != _COOKIE_BYTES:
        return None
    count = 0
    try:
        for _key in _used_keys(map_fd, about):
            count += 1
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
    return count


def _used_keys(map_fd: Fd, about: MapInfo) -> Iterator[bytes]:
    if about.type == "sockhash":
        return maps.keys(map_fd, about.key_size)
    indexes = (struct.pack("=I", index) for index in range(about.max_entries))
    return (key for key in indexes if maps.lookup(map_fd, key, about.value_size) is not None)


def delete_all(map_fd: Fd, about: MapInfo) -> None:
    """Take every socket out of the map; what is queued for them is lost, silently.

    A socket cannot be put back, so that under a journal this waits for the commit.
    """
    held = journal.hold(map_fd)
    journal.at_commit(f"delete the sockets in map {about.id}", lambda: _delete_all(held, about))


def _delete_all(map_fd: Fd, about: MapInfo) -> None:
    if about.type == "sockhash":
        doomed = list(maps.keys(map_fd, about.key_size))
    else:
        doomed = [struct.pack("=I", index) for index in range(about.max_entries)]
    for key in doomed:
        try:
            maps.take(map_fd, key)
        except OSError as error:
            if error.errno != errno.EINVAL:  # sock_map_delete_elem says so of an empty index
                raise


def programs_using(map_id: int, prog_type: str) -> Iterator[info.ProgramInfo]:
    """The loaded programs of a type that refer to the map."""
    for prog_id in info.program_ids():
        try:
            with info.open_program(prog_id) as fd:
                about = info.program(fd)
        except FileNotFoundError:
            continue
        if about.type == prog_type and map_id in about.map_ids:
            yield about
