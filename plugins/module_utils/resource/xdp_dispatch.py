# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Dispatchers in the kernel: what they call, and how one takes another's place.

The pins, their order and the lock are those of libxdp's protocol, so that its tools see what is
here and go on from it (https://github.com/xdp-project/xdp-tools, lib/libxdp/protocol.org).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..bpf import files, info, journal, netns, pins, xdp_dispatcher
from ..bpf.syscall import Fd
from ..bpf.xdp_dispatcher import Config
from . import linked, paths
from .errors import Failure, from_os_error
from .xdp_chain import Chain, Component

DIRECTORY = f"{paths.BPFFS}/xdp"

# What stands between two dispatchers while one takes the other's place; a killed run leaves it.
_MARKERS = f"{paths.BPFFS}/{paths.HOME}"
_MARKER = "xdp_swap-"

_LOCK_TIMEOUT = 10  # seconds; libxdp holds its lock for milliseconds


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold libxdp's lock, which keeps its tools from changing the pins meanwhile."""
    try:
        directory = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # nothing was ever pinned there
        return
    try:
        _wait(directory)
        yield
    finally:
        os.close(directory)


def _wait(directory: int) -> None:
    end = time.monotonic() + _LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise Failure(
                    f"another program has held the lock of {DIRECTORY} for {_LOCK_TIMEOUT} s; "
                    "find it with lsof or fuser, and run this again"
                ) from None
        time.sleep(0.02)


def read(ifindex: int, prog_id: int) -> Chain | None:
    """What the dispatcher calls; None when the program is no dispatcher. Wants the lock."""
    with info.open_program(prog_id) as fd:
        about = info.program(fd)
    try:
        config = xdp_dispatcher.read(about)
    except xdp_dispatcher.Unknown as error:
        problem = f"its layout is not known to ebpf.fleet: {error}; update the collection"
        return Chain(prog_id, problem=problem)
    if config is None:
        return None
    directory = _directory(ifindex, prog_id)
    try:
        found = tuple(_components(directory, config))
    except FileNotFoundError as error:
        problem = (
            f"there is no {error.filename}: its components are pinned in another BPF file system "
            "(LIBXDP_BPFFS, another mount namespace) or no more; unload it with the tool that "
            "loaded it"
        )
        return Chain(prog_id, (), config.version, problem)
    return Chain(prog_id, found, config.version)


def _components(directory: str, config: Config) -> Iterator[Component]:
    for index, slot in enumerate(config.slots):
        with pins.get(f"{directory}/prog{index}-prog") as fd:
            about = info.program(fd)
        yield Component(linked.program(about.id), slot, about.load_time)


def calls(ifindex: int, prog_id: int) -> Iterator[tuple[int, Component]]:
    """Link id and component of each slot whose pins can be seen, in order, without the lock."""
    chain = read(ifindex, prog_id)
    for index, each in enumerate(chain.components if chain else ()):
        with contextlib.suppress(FileNotFoundError):
            with pins.get(f"{_directory(ifindex, prog_id)}/prog{index}-link") as fd:
                link_id = info.link(fd).id
            yield link_id, each


def component(prog_id: int) -> Component:
    """A program that is no component yet, and how it wants to be called."""
    with info.open_program(prog_id) as fd:
        about = info.program(fd)
    return Component(linked.program(prog_id), xdp_dispatcher.run_config(about), about.load_time)


def _directory(ifindex: int, prog_id: int) -> str:
    return f"{DIRECTORY}/dispatch-{ifindex}-{prog_id}"


@dataclass(frozen=True)
class _Built:
    """A dispatcher with its components in place, attached to nothing and without a pin."""

    fd: Fd
    prog_id: int
    programs: tuple[Fd, ...]
    links: tuple[Fd, ...]


@contextlib.contextmanager
def _build(components: Sequence[Component], version: int) -> Iterator[_Built]:
    config = Config(tuple(each.slot for each in components), version or xdp_dispatcher.VERSION)
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(xdp_dispatcher.load(config))
        about = info.program(fd)
        functions = xdp_dispatcher.function_ids(about)
        programs, links = [], []
        for each, name in zip(components, xdp_dispatcher.replaced(len(components))):
            program = stack.enter_context(info.open_program(each.program.id))
            programs.append(program)
            links.append(stack.enter_context(_attach(each, program, fd, functions[name])))
        yield _Built(fd, about.id, tuple(programs), tuple(links))


def _attach(component: Component, program: Fd, dispatcher: Fd, function: int) -> Fd:
    try:
        return xdp_dispatcher.attach(program, dispatcher, function)
    except OSError as error:
        attempt = f"let a dispatcher call {component.program}"
        raise from_os_error(error, attempt, "Linux 5.10 has it; nothing was changed") from error


def rehearse(components: Sequence[Component], version: int, attach: Callable[[Fd], None]) -> None:
    """Make the dispatcher, let ``attach`` try it, and drop it."""
    with _build(components, version) as built:
        attach(built.fd)


def swap(
    ifindex: int,
    old_id: int,
    components: Sequence[Component],
    version: int,
    attach: Callable[[Fd | None], None],
) -> None:
    """Let a dispatcher with these components take the place of the old one (0: of nothing).

    ``attach`` does it at the interface, at once or not at all, None standing for nothing. As in the
    protocol the new pins are there before, and the old ones until afterwards.
    """
    paths.check_parent(f"{DIRECTORY}/dispatch")
    files.make_directories(DIRECTORY, 0o700)
    with locked(), contextlib.ExitStack() as stack:
        built = stack.enter_context(_build(components, version)) if components else None
        new_id = built.prog_id if built else 0
        marker = _marker(ifindex, old_id, new_id)
        with journal.recording():
            files.make_directories(marker, 0o700)
            if built:
                _pin(_directory(ifindex, new_id), built)
            attach(built.fd if built else None)
            discard(marker, new_id)


def _pin(directory: str, built: _Built) -> None:
    files.make_directories(directory, 0o700)
    for index, (program, link) in enumerate(zip(built.programs, built.links)):
        pins.pin(link, f"{directory}/prog{index}-link")
        pins.pin(program, f"{directory}/prog{index}-prog")


def _marker(ifindex: int, old_id: int, new_id: int) -> str:
    return f"{_MARKERS}/{_marker_of(ifindex)}{old_id}-{new_id}"


def _marker_of(ifindex: int) -> str:
    """Of the current network namespace: others have interfaces with the same index."""
    return f"{_MARKER}{ifindex}-{netns.inode('')}-"


def unfinished(ifindex: int) -> tuple[str, ...]:
    """What killed runs left at this interface of the current network namespace."""
    mark = _marker_of(ifindex)
    try:
        found = sorted(name for name in os.listdir(_MARKERS) if name.startswith(mark))
    except FileNotFoundError:
        return ()
    return tuple(f"{_MARKERS}/{name}" for name in found)


def discard(marker: str, attached_id: int) -> None:
    """Take away the pins of the dispatchers that the marker names, but for the attached one's."""
    ifindex, _netns, *ids = map(int, os.path.basename(marker)[len(_MARKER) :].split("-"))
    for prog_id in ids:
        if prog_id not in (0, attached_id):
            _unpin(_directory(ifindex, prog_id))
    files.remove_directory(marker)
    paths.prune_home(marker)


def _unpin(directory: str) -> None:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return
    for name in names:
        pins.remove(f"{directory}/{name}")
    files.remove_directory(directory)
