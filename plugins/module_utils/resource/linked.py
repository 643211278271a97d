# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What attachments of every hook share: pinned programs, pinned links, and whose is whose."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from ..bpf import info, journal, links, pins, provenance
from ..bpf.info import LinkInfo
from ..bpf.syscall import Fd
from . import paths
from .errors import Failure, from_os_error


@dataclass(frozen=True)
class Program:
    """A program at a hook or behind a pin, as far as policy has to know it."""

    id: int
    name: str
    type: str
    tag: str
    ours: bool = False  # carries our provenance
    stack: str = ""

    def __str__(self) -> str:
        return f"program {self.id} ({self.name or 'unnamed'}, {self.type})"

    def supersedes(self, other: Program) -> bool:
        """Whether ``other`` is an earlier version of this program, or this very one."""
        same = (self.name, self.type, self.stack) == (other.name, other.type, other.stack)
        return self.id == other.id or (same and self.ours and other.ours)


def _describe(fd: Fd) -> Program:
    about = info.program(fd)
    origin = provenance.read(about)
    return Program(
        about.id,
        about.name,
        about.type,
        about.tag,
        origin.get("owner") == provenance.OWNER,
        origin.get("stack", ""),
    )


def program(prog_id: int) -> Program:
    """Describe the program with this id. FileNotFoundError when it is gone."""
    with info.open_program(prog_id) as fd:
        return _describe(fd)


def open_pin(path: str, kind: str) -> Fd | None:
    """Open the pinned ``program``, ``map`` or ``link``; None when there is nothing.

    Raises Failure when the path holds anything else: that is never ours to replace.
    """
    try:
        fd = pins.get(path)
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise from_os_error(error, f"open the pinned {kind} {path}", "correct the path") from error
    except OSError as error:
        if error.errno not in (*pins.NO_PIN, errno.EISDIR, errno.EINVAL):
            raise from_os_error(error, f"open the pinned {kind} {path}") from error
        what = "a directory" if os.path.isdir(path) else "no pin of a BPF file system"
        raise Failure(f"{path} is {what}, not a pinned {kind}; declare another path") from error
    found = pins.kind(fd)
    if found == kind:
        return fd
    fd.close()
    raise Failure(f"{path} is a pinned {found}, not a pinned {kind}; declare another path")


def pinned_program(path: str) -> Program | None:
    """Describe the program pinned at ``path``; None when there is nothing. Raises Failure."""
    fd = open_pin(path, "program")
    if fd is None:
        return None
    with fd:
        return _describe(fd)


def pinned_program_ids(near: str, ignored: Collection[str] = ()) -> set[int]:
    """The ids of the programs that have a name in the BPF file system in which ``near`` lies.

    ``ignored`` are paths of pins that do not count.
    """
    top = near
    while top != "/" and not os.path.isdir(top):
        top = os.path.dirname(top)
    while top != "/" and pins.is_bpffs(os.path.dirname(top)):
        top = os.path.dirname(top)
    found: set[int] = set()
    for directory, _directories, files in os.walk(top):
        for name in files:
            path = os.path.join(directory, name)
            if path not in ignored:
                found.update(_pinned_program_id(path))
    return found


def _pinned_program_id(path: str) -> Iterator[int]:
    try:
        with pins.get(path) as fd:
            if pins.kind(fd) == "program":
                yield info.program(fd).id
    except OSError as error:
        if error.errno not in pins.NO_PIN:
            raise from_os_error(error, f"look at what is pinned at {path}") from error


def require_program(path: str) -> Fd:
    """Open the program pinned at ``path``. Raises Failure when there is none."""
    fd = open_pin(path, "program")
    if fd is None:
        paths.check_parent(path)
        raise Failure(f"no program is pinned at {path}; load it first (ebpf.fleet.bpf_prog)")
    return fd


def pinned_link(path: str, link_type: str, declared: Program | None) -> LinkInfo | None:
    """Describe the link pinned at ``path``; None when there is nothing.

    Raises Failure when it is a link of another type, or when it lies outside the directories of
    ours and holds a program that is neither ours nor the ``declared`` one: then it is foreign.
    """
    fd = open_pin(path, "link")
    if fd is None:
        return None
    with fd:
        about = info.link(fd)
    if about.type != link_type:
        raise Failure(
            f"{path} is a pinned {about.type} link, not a {link_type} link; declare another path"
        )
    if paths.is_home(path) or (declared is not None and about.prog_id == declared.id):
        return about
    held = program(about.prog_id)
    if not held.ours:
        raise Failure(
            f"the link pinned at {path} holds {held}, which was not loaded by ebpf.fleet; "
            f"declare a link below {paths.BPFFS}/{paths.HOME}/, or detach that one yourself "
            f"(bpftool link detach pinned {path}; rm {path})",
            prog_id=held.id,
        )
    return about


def discard_staged(path: str) -> None:
    """Detach what a killed run left waiting for the name ``path``."""
    release(pins.staging_path(path))


def pin_new(path: str, make: Callable[[], Fd]) -> None:
    """Make a link and give it the name ``path``; the link that had the name is then detached."""
    discard_staged(path)
    with make() as link:
        _give_name(link, path)


def adopt(path: str, link_id: int) -> None:
    """Give a link that exists the name ``path``; the link that had the name is then detached.

    Under a journal it may be one that is about to be detached, as another name of it is gone.
    """
    journal.stays(link_id)
    with info.open_link(link_id) as link:
        _give_name(link, path)


def _give_name(link: Fd, path: str) -> None:
    paths.make_parent(path)
    previous = open_pin(path, "link")
    if previous is None:
        pins.replace(link, path)
        return
    with previous:
        pins.replace(link, path)
        links.detach(previous)


def swap(path: str, new: Fd, old_id: int) -> None:
    """Give the pinned link a new program, if it still holds ``old_id``. Raises Failure."""
    with pins.get(path) as link, info.open_program(old_id) as old:
        try:
            links.update(link, new, old)
        except OSError as error:
            advice = "run it again; if that fails too, the link's type takes no other program"
            if error.errno == errno.EPERM:
                advice = "another tool changed its program meanwhile; see bpftool link show"
            raise from_os_error(error, f"update the link {path}", advice) from error


def out_of_sight(present: bool, link: str) -> frozenset[int]:
    """The ids of links that are as good as gone: a journal detaches them at its commit.

    Who looks for a link to pin sees them: one that only lost its name can get another.
    """
    return frozenset() if present and link else journal.leaving()


def release(path: str) -> None:
    """Detach the pinned link and take its name away; nothing when there is none.

    In this order because the kernel detaches a link that merely lost its last pin some
    milliseconds later.
    """
    fd = open_pin(path, "link")
    if fd is None:
        return
    with fd:
        links.detach(fd)
        pins.remove(path)
    paths.prune_home(path)
