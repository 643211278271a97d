# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""One run at a time on a host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .errors import Failure, from_os_error

# Not in /run/lock, where anybody may make a file of this name first, and hold it or have it refused
# to root (fs.protected_regular).
PATH = "/run/ebpf-fleet.lock"


@contextlib.contextmanager
def host_lock(timeout: int) -> Iterator[None]:
    """Hold the host's lock; wait for another run at most ``timeout`` seconds.

    The kernel releases the lock when its holder dies, so a killed run leaves none behind.
    """
    try:
        fd = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise from_os_error(error, f"open the lock {PATH}") from error
    try:
        _wait(fd, timeout)
        os.truncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(fd)


def _wait(fd: int, timeout: int) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(0.05)
                continue
        holder = os.pread(fd, 20, 0).decode("ascii", "replace") or "unknown"
        raise Failure(
            f"another run (process {holder}) has held {PATH} for {timeout} s; "
            "wait for it to end, or raise lock_timeout"
        )
