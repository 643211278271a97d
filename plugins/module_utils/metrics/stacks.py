# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics of the stacks: which release runs, and whether the host is as it declares.

Whether it is, is asked of the engine in a process of its own: that loads programs, and the answer
must not hold up whoever scrapes. A run that holds the host's lock is not waited for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from ..resource.errors import Failure
from ..stack import engine_dir, status, store
from .family import Family, gauge

CONDITIONS = (status.IN_SYNC, status.DRIFTED, status.UNFINISHED, status.FALLBACK, status.REMOVED)

_TIMEOUT = 60
_LOCK_SECONDS = 1


def families() -> list[Family]:
    """Each stack's release and condition. Raises Failure when the engine cannot say."""
    about = gauge("stack_info", "The release that a stack declares and the one that runs; 1.")
    condition = gauge("stack_condition", "The condition of a stack: 1 for the one that it is in.")
    steps = gauge("stack_drift_steps", "How many steps would bring the host to its release.")
    stored = gauge("stack_releases", "How many releases of the stack the host stores.")
    for each in _ask():
        name = str(each["name"])
        about.add(1, stack=name, release=each["active"] or "", running=each["running"] or "")
        condition.states(str(each["condition"]), CONDITIONS, "condition", stack=name)
        steps.add(len(each["actions"]), stack=name)
        stored.add(len(each["releases"]), stack=name)
    return [about, condition, steps, stored]


def _ask() -> list[Mapping[str, Any]]:
    if not store.stacks():
        return []
    engine = os.path.join(engine_dir.base(), engine_dir.current() or "none")
    request = {"do": "status", "lock_timeout": _LOCK_SECONDS}
    try:
        done = subprocess.run(
            [sys.executable, "-I", engine, "request"],
            input=json.dumps(request),
            capture_output=True,
            check=False,
            encoding="utf-8",
            timeout=_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise Failure(f"the engine did not say within {_TIMEOUT} s what the host runs") from error
    try:
        answer = json.loads(done.stdout)
    except ValueError as error:
        raise Failure(
            f"the engine did not say what the host runs: {done.stderr.strip()}"
        ) from error
    if answer.get("failed"):
        raise Failure(str(answer.get("msg")))
    found: list[Mapping[str, Any]] = answer["stacks"]
    return found


def stamp() -> object:
    """What differs after a release was made active, taken back or removed."""
    return tuple(_times())


def _times() -> Iterator[tuple[str, int, int]]:
    for stack in store.stacks():
        for name in ("current", "pending.json", "fallback.json"):
            path = os.path.join(store.directory(stack), name)
            try:
                found = os.lstat(path)
            except OSError:
                continue
            yield path, found.st_ino, found.st_mtime_ns
