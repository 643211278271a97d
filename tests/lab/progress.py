# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress: a line for each thing that takes a while, with how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Result:
    """What a step wants to have said at the end of its line."""

    def __init__(self) -> None:
        self.text = ""


@contextmanager
def step(what: str) -> Iterator[Result]:
    """Print `what` at once, and its duration and result when the block ends."""
    print(f"{what:<58}", end="", flush=True)
    begin = time.monotonic()
    result = Result()
    ended = "failed"
    try:
        yield result
        ended = ""
    finally:
        print(f"{time.monotonic() - begin:6.1f} s  {ended or result.text}".rstrip(), flush=True)
