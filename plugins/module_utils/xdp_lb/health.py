# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The health service: checks every backend and keeps the balancer's maps in step with that.

It holds nothing that matters: health is in the pinned map, where the service finds it again after a
restart, and while it is not there the data path goes on as it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from ..resource.errors import Failure
from . import health_config, health_maps, health_tend, health_watch
from .health_config import Config, Stamp
from .health_maps import Backend, Key
from .health_watch import Conditions, Watch

LOOK_SECONDS = 1.0  # how often the maps are read, and the configuration is looked at
TEND_SECONDS = 5.0  # how often next hops are resolved and moved slots settled
TEND_SHARE = 20  # counting a million connections takes seconds: rest so many times as long

Result = TypeVar("Result")


@dataclass
class Service:
    """What the running service knows. Work on maps waits for locks, so threads of it do that."""

    path: str
    stamp: Stamp  # of the file when it was last read, whatever came of it
    config: Config
    shared: Conditions
    threads: ThreadPoolExecutor
    watches: dict[Key, Watch] = field(default_factory=dict)
    looked: bool = False  # at every ring, since the balancer was found
    troubles: dict[str, str] = field(default_factory=dict)  # said already, by what had them
    kept: frozenset[str] = frozenset()  # services that keep all backends, as too few are up
    unchecked: frozenset[str] = frozenset()  # services whose check has no port


def main(arguments: Sequence[str]) -> int:
    """``health CONFIGURATION``: run until SIGTERM. Returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: ebpf-fleet-health.pyz CONFIGURATION.json\n")
        return 2
    stamp = health_config.stamp(arguments[0])
    try:
        config = health_config.read(arguments[0])
        contexts = health_watch.contexts_of(config)
    except Failure as failure:
        sys.stderr.write(f"{failure}\n")
        return 2
    asyncio.run(_run(arguments[0], stamp, config, contexts))
    return 0


async def _run(path: str, stamp: Stamp, config: Config, contexts: health_watch.Contexts) -> None:
    """Check, look, write, until SIGTERM or SIGINT.

    A configuration that changes is taken up by itself, as a release that goes back to another one
    puts the file there and tells nobody. SIGHUP reads it anew at once, and certificates with it.
    """
    loop = asyncio.get_running_loop()
    wake, ended = asyncio.Event(), asyncio.Event()
    shared = Conditions(contexts, asyncio.Semaphore(config.concurrency), wake)
    with ThreadPoolExecutor(max_workers=2) as threads:
        service = Service(path, stamp, config, shared, threads)

        def stop() -> None:
            ended.set()
            wake.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, _reload, service)
        _say(f"begins: {len(config.services)} services of {config.pin_dir} are checked")
        tending = asyncio.create_task(_tend_forever(service))
        while not ended.is_set():
            wake.clear()
            if health_config.stamp(path) != service.stamp:
                _reload(service)
            await _step(service)
            await _wait(wake, LOOK_SECONDS)
        tending.cancel()
        health_watch.stop(service.watches)
    _say("ends: the balancer goes on as it is")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _reload(service: Service) -> None:
    """Take the file's configuration; keep the present one when the file is wrong, and say so once.

    The stamp is from before the reading: a file that changes meanwhile is read once more.
    """
    service.stamp = health_config.stamp(service.path)
    try:
        config = health_config.read(service.path)
        contexts = health_watch.contexts_of(config)
    except Failure as failure:
        _say(f"keeps its configuration: {failure}")
        return
    limit = service.shared.limit
    if config.concurrency != service.config.concurrency:
        limit = asyncio.Semaphore(config.concurrency)
    service.config = config
    service.shared = Conditions(contexts, limit, service.shared.wake)
    service.shared.wake.set()
    _say(f"reloaded: {len(config.services)} services of {config.pin_dir} are checked")


async def _step(service: Service) -> None:
    """Bring the watches in step with the maps and the maps in step with the watches."""
    pins = service.config.pin_dir
    try:
        found = await _in_thread(service, lambda: health_maps.backends(pins))
        backends = tuple(found.values())
        health_watch.follow(service.watches, service.config, backends, service.shared)
        _say_unchecked(service, backends)
        wanted = health_watch.changes(service.watches, backends)
        if wanted or not service.looked:
            write = functools.partial(health_maps.write, pins, wanted, not service.looked)
            _say_written(service, await _in_thread(service, write))
        service.looked = True
        _complain(service, "maps", "")
    except (Failure, OSError) as error:
        service.looked = False
        _complain(service, "maps", str(error))


async def _tend_forever(service: Service) -> None:
    """Settle slots and keep next hops resolved, beside the checks."""
    loop = asyncio.get_running_loop()
    settled: frozenset[int] = frozenset()
    while True:
        begun = loop.time()
        pins = service.config.pin_dir
        try:
            tended = await _in_thread(service, functools.partial(health_tend.tend, pins, settled))
            settled = tended.settled
            for name, count in sorted(tended.slots.items()):
                _say(f"{name}: {count} slots are settled")
            _complain(service, "tending", "")
        except (Failure, OSError) as error:
            _complain(service, "tending", str(error))
        await asyncio.sleep(max(TEND_SECONDS, TEND_SHARE * (loop.time() - begun)))


async def _in_thread(service: Service, step: Callable[[], Result]) -> Result:
    """Run a step that may wait, for the host's lock or the kernel, while checks go on."""
    return await asyncio.get_running_loop().run_in_executor(service.threads, step)


def _complain(service: Service, what: str, trouble: str) -> None:
    """Say a trouble once, and once that it is over."""
    before = service.troubles.pop(what, "")
    said = service.troubles.values()  # by another part of the service
    if trouble and trouble != before and trouble not in said:
        _say(f"trouble: {trouble}")
    if before and before != trouble and before not in said:
        _say(f"over: {before}")
    if trouble:
        service.troubles[what] = trouble


def _say_unchecked(service: Service, backends: Sequence[Backend]) -> None:
    unchecked = frozenset(
        each.service
        for each in backends
        if each.service in service.config.services
        and not health_watch.check_port(service.config, each)
    )
    for name in sorted(unchecked - service.unchecked):
        _say(f"{name} is not checked: it takes any port, so say health_check.port")
    service.unchecked = unchecked


def _say_written(service: Service, written: health_maps.Written) -> None:
    """One line for each backend whose health has changed, one when a service keeps all or not."""
    for backend, health in written.changed:
        watch = service.watches.get(backend.key)
        why = f", {watch.verdict.reason}" if watch is not None and health == "down" else ""
        _say(f"{backend} is {health}{why}; {_in_ring(written.ring_sizes, backend.service)}")
    for name in sorted(written.kept - service.kept):
        _say(f"{name} keeps all its backends: fewer than the floor are up")
    for name in sorted(service.kept - written.kept):
        _say(f"{name} leaves out what is down again: enough are up")
    service.kept = written.kept


def _in_ring(sizes: Mapping[str, tuple[int, int]], name: str) -> str:
    members, active = sizes[name]
    return f"{members} of {active} active backends of {name} take new connections"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
