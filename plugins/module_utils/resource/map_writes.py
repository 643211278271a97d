# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Writing many entries of a map as one step: all of them, or none."""

from __future__ import annotations

import errno
import functools
from dataclasses import dataclass

from ..bpf import journal, map_contents, maps
from ..bpf.info import MapInfo
from ..bpf.syscall import Fd
from .errors import Failure, from_os_error

_FULL = (errno.E2BIG, errno.ENOSPC, errno.ENOMEM)
_LRU = ("lru_hash", "lru_percpu_hash")


@dataclass(frozen=True)
class Write:
    """One entry before and after; None where there is none."""

    key: bytes
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Batch:
    """All writes of one run to a map that held ``count`` entries when they were planned."""

    map: MapInfo
    writes: tuple[Write, ...]
    count: int

    @property
    def added(self) -> int:
        """How many keys are new."""
        return sum(write.before is None for write in self.writes)

    @property
    def removed(self) -> int:
        """How many keys go away."""
        return sum(write.after is None for write in self.writes)


def require_writable(fd: Fd, batch: Batch, pin: str) -> None:
    """Refuse early what the kernel would refuse, or would do by evicting declared entries."""
    if map_contents.is_frozen(fd):
        raise Failure(
            f"{pin} is frozen: its entries can never be written again; constants of a program are "
            "set when it is loaded (constants of bpf_prog), other maps have to be made anew"
        )
    found = batch.map
    if found.type in map_contents.INDEXED:
        return
    # An LRU makes room by itself, though not for more than it can hold.
    others = 0 if found.type in _LRU else batch.count - batch.removed
    if others + batch.added > found.max_entries:
        raise Failure(
            f"{pin} holds at most {found.max_entries} entries: it has {batch.count}, of which "
            f"{batch.removed} go, and {batch.added} are to be added. Nothing was changed; make the "
            "map larger (max_entries, map_max_entries of bpf_prog), or set purge: true when "
            "what is not declared may go"
        )


def write_all(fd: Fd, batch: Batch, pin: str) -> None:
    """Write the entries; undo what was written, and raise Failure, when one is refused.

    New entries come first, so that nothing declared is missing in between; when the map is too
    full for that, removals come first.
    """
    removals = [write for write in batch.writes if write.after is None]
    others = [write for write in batch.writes if write.after is not None]
    has_room = batch.count + batch.added <= batch.map.max_entries
    with journal.recording() as log:
        held = journal.hold(fd)
        for write in [*others, *removals] if has_room else [*removals, *others]:
            try:
                old = _current(fd, batch.map, write)
                _put(fd, write.key, write.after)
            except OSError as error:
                raise _refused(error, batch, write, pin, len(log.roll_back())) from error
            journal.undo("write a map entry back", functools.partial(_put, held, write.key, old))


def _refused(error: OSError, batch: Batch, write: Write, pin: str, left: int) -> Failure:
    state = f"{left} of its writes could not be undone" if left else "nothing was changed"
    advice = f"it holds at most {batch.map.max_entries} entries; " if _is_full(error) else ""
    attempt = f"write the entry with key {write.key.hex(' ')} of {pin}"
    return from_os_error(error, attempt, advice + state)


def _is_full(error: OSError) -> bool:
    return error.errno in _FULL


def _current(fd: Fd, found: MapInfo, write: Write) -> bytes | None:
    """The entry as it is now; of a trie, which looks up shorter prefixes, too, what was read."""
    if found.type == map_contents.TRIE:
        return write.before
    return maps.lookup(fd, write.key, maps.value_bytes(found))


def _put(fd: Fd, key: bytes, value: bytes | None) -> None:
    if value is None:
        maps.take(fd, key)
    else:
        maps.put(fd, key, value)
