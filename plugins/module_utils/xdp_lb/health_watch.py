# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The backends under watch: one task each, which sleeps, checks and judges."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..resource.errors import from_os_error
from . import health_checks
from .health_config import Check, Config
from .health_maps import Backend, Key
from .health_verdict import UNKNOWN, Verdict, judge

Contexts = Mapping[Check, "ssl.SSLContext | None"]


@dataclass
class Watch:
    """One backend that is checked, and what is thought of it."""

    check: Check
    port: int
    verdict: Verdict
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True)
class Conditions:
    """What all checks share. ``wake`` is set when a verdict changes a backend's health."""

    contexts: Contexts
    limit: asyncio.Semaphore
    wake: asyncio.Event


def contexts_of(config: Config) -> Contexts:
    """What TLS needs for each check, made once. Raises Failure for a ``ca_file`` that is none."""
    found: dict[Check, ssl.SSLContext | None] = {}
    for name, check in config.services.items():
        try:
            found[check] = health_checks.context_of(check)
        except OSError as error:
            raise from_os_error(error, f"health_check of service {name}: ca_file") from error
    return found


def follow(
    watches: dict[Key, Watch], config: Config, backends: Sequence[Backend], shared: Conditions
) -> None:
    """Watch exactly the backends that there are and whose service is checked.

    A new watch begins with the health that the map has; one whose check has changed keeps its own.
    """
    due = {each.key: each for each in backends if check_port(config, each) and not each.disabled}
    for key in [key for key in watches if key not in due]:
        _end(watches.pop(key))
    for key, backend in due.items():
        check, port = config.services[backend.service], check_port(config, backend)
        before = watches.get(key)
        if before is not None:
            if (before.check, before.port) == (check, port):
                continue
            _end(before)
        health = before.verdict.health if before is not None else backend.health
        watch = Watch(check, port, Verdict(health))
        watch.task = asyncio.create_task(_check_forever(watch, backend.address, shared))
        watches[key] = watch


def check_port(config: Config, backend: Backend) -> int:
    """The port on which a backend is checked; 0 when it is not."""
    check = config.services.get(backend.service)
    return (check.port or backend.port or backend.service_port) if check is not None else 0


def changes(watches: Mapping[Key, Watch], backends: Sequence[Backend]) -> dict[Key, str]:
    """What the map has to say of each backend and does not. Nobody checked is nobody known."""
    wanted = {}
    for backend in backends:
        watch = watches.get(backend.key)
        if watch is None and backend.disabled:
            continue
        health = watch.verdict.health if watch is not None else UNKNOWN
        if health != backend.health:
            wanted[backend.key] = health
    return wanted


def stop(watches: dict[Key, Watch]) -> None:
    """End every watch."""
    for watch in watches.values():
        _end(watch)
    watches.clear()


def _end(watch: Watch) -> None:
    if watch.task is not None:
        watch.task.cancel()


async def _check_forever(watch: Watch, address: str, shared: Conditions) -> None:
    """Check at each interval, give or take the jitter; the first time somewhere within one."""
    loop = asyncio.get_running_loop()
    check = watch.check
    due = loop.time() + random.uniform(0, check.interval)
    while True:
        await asyncio.sleep(max(due - loop.time(), 0))
        async with shared.limit:
            begun = loop.time()
            failure = await health_checks.probe(check, shared.contexts[check], address, watch.port)
        before = watch.verdict
        watch.verdict = judge(before, failure, check.rise, check.fall)
        if watch.verdict.health != before.health:
            shared.wake.set()
        due = begun + check.interval * random.uniform(1 - check.jitter, 1 + check.jitter)
