# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to get a program to a socket map's hook, or away from it: pure functions of values.

The rules are those of sock_map_prog_update and sock_map_link_create in net/core/sock_map.c: one
program at a hook; a direct attachment and a new link silently replace a direct one, while a link
lets neither in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf import names
from ..bpf.info import LinkInfo
from .engine import Change
from .errors import Failure
from .linked import Program


@dataclass(frozen=True)
class Desired:
    """One attachment as declared. ``map``, ``prog`` and ``link`` are absolute pins or empty."""

    map: str
    prog: str
    attach_type: str
    link: str  # empty: attached directly
    present: bool
    drain: str  # wait, force or none
    drain_timeout: int  # seconds


@dataclass(frozen=True)
class Holder:
    """The program at the hook. ``link_id`` is 0 when it is attached directly."""

    program: Program
    link_id: int = 0
    pinned: bool = False  # some pin still names it: it is not an outdated version


@dataclass(frozen=True)
class Observed:
    """The map, its hook and the pins."""

    map_id: int = 0  # 0: there is no such map
    program: Program | None = None
    link: LinkInfo | None = None
    link_program: Program | None = None
    staged: bool = False  # a killed run left a link waiting for its name
    holder: Holder | None = None
    tells: bool = True  # False before Linux 5.18: the holder is what we recorded
    stale_record: bool = False  # there is a record, but of a map that had the name before
    suspects: tuple[
        Program, ...
    ] = ()  # foreign, use the map, and may be attached: unless ``tells``
    sockets: int | None = 0  # counted for a removal only; None: the kernel does not show them
    feeders: tuple[str, ...] = ()  # what still puts sockets into the map, for a removal

    @property
    def link_is_elsewhere(self) -> bool:
        """Whether the pinned link holds another map's hook, or none any more."""
        return self.link is not None and (
            self.holder is None or self.holder.link_id != self.link.id
        )


@dataclass(frozen=True)
class Step:
    """What apply does: a verb of its own, and the program or link that the step expects."""

    do: str
    id: int = 0


def hook(desired: Desired) -> str:
    """The hook, for people."""
    return f"{desired.map} {desired.attach_type}"


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """What leads to the declared attachment. Raises Failure when something forbids it."""
    if not desired.present:
        return list(_plan_absent(desired, observed))
    if observed.program is None or not observed.map_id:
        return [_predicted(desired, observed)]
    if observed.suspects:
        raise Failure(
            "Linux before 5.18 does not say which program a socket map has, and "
            f"{observed.suspects[0]}, which is foreign, uses {desired.map}: it may be attached and "
            "would be replaced silently; detach and unload it first",
            prog_id=observed.suspects[0].id,
        )
    if desired.link:
        return list(_plan_link(desired, observed, observed.program))
    return list(_plan_direct(desired, observed, observed.program))


def _shown(program: Program, link: str) -> Mapping[str, Any]:
    shown = {"program": program.name, "prog_id": program.id}
    return {**shown, "link": link} if link else {**shown, "mode": "direct"}


def _predicted(desired: Desired, seen: Observed) -> Change:
    missing = desired.map if not seen.map_id else desired.prog
    after = {"program": desired.prog, **({"link": desired.link} if desired.link else {})}
    warning = f"nothing is pinned at {missing} yet; a real run needs it"
    return Change("attach program", hook(desired), None, after, warning, Step("missing"))


def _plan_link(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    here = seen.link is not None and not seen.link_is_elsewhere
    after = _shown(program, desired.link)
    if not here:
        yield _new_link(desired, seen, program)
        return
    if seen.link is not None and seen.link.prog_id != program.id:
        before = _shown(seen.link_program, desired.link) if seen.link_program else None
        step = Step("update link", seen.link.prog_id)
        yield Change("update link", hook(desired), before, after, detail=step)
    yield from _discard(desired, seen)


def _new_link(desired: Desired, seen: Observed, program: Program) -> Change:
    holder, after = seen.holder, _shown(program, desired.link)
    if holder and holder.link_id and holder.program.id == program.id:
        warning = (
            f"link {holder.link_id} attaches {program} to {hook(desired)} already; it is pinned at "
            f"{desired.link} now"
        )
        step = Step("adopt link", holder.link_id)
        return Change("pin link", hook(desired), None, after, warning, step)
    if holder and (holder.link_id or not _supersedes(program, holder)):
        raise _occupied(desired, holder)
    if holder:
        before = _shown(holder.program, "")
        return Change("take over by link", hook(desired), before, after, detail=Step("create link"))
    if seen.link is None:
        return Change("attach program", hook(desired), None, after, detail=Step("create link"))
    warning = ""
    before = {"link": desired.link, "map_id": seen.link.map_id or None}
    if seen.link.map_id:
        warning = f"{desired.link} held a program at map {seen.link.map_id}: it is detached there"
    return Change("replace link", hook(desired), before, after, warning, Step("create link"))


def _plan_direct(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    holder, after = seen.holder, _shown(program, "")
    if holder is None:
        yield Change("attach program", hook(desired), None, after, detail=Step("attach"))
    elif holder.link_id or not _supersedes(program, holder):
        raise _occupied(desired, holder)
    elif holder.program.id != program.id:
        before = _shown(holder.program, "")
        yield Change("replace program", hook(desired), before, after, detail=Step("attach"))


def _occupied(desired: Desired, holder: Holder) -> Failure:
    if holder.link_id:
        how = f"by link {holder.link_id}"
        way_out = "declare the pin of that link with the option link, or detach it first"
        way_out += f" (bpftool link detach id {holder.link_id})"
    else:
        how = "directly"
        short = {long: short for short, long in names.ATTACH_TYPE_ALIASES.items()}
        way_out = "it would be replaced silently, so it is left alone; detach it first (bpftool "
        way_out += f"prog detach id {holder.program.id} {short[desired.attach_type]} "
        way_out += f"pinned {desired.map})"
    return Failure(
        f"{holder.program} is attached {how} to {hook(desired)}, which takes one program; "
        f"{way_out}",
        prog_id=holder.program.id,
    )


def _plan_absent(desired: Desired, seen: Observed) -> Iterator[Change]:
    if seen.holder and _is_meant(desired, seen, seen.holder):
        yield from _plan_drain(desired, seen)
        yield _detach(desired, seen, seen.holder)
    elif seen.link is not None:
        before = _shown(seen.link_program, desired.link) if seen.link_program else None
        yield Change("detach link", desired.link, before, None, detail=Step("release"))
    yield from _discard(desired, seen)
    if seen.stale_record:
        yield Change("discard record of", hook(desired), detail=Step("forget"))


def _is_meant(desired: Desired, seen: Observed, holder: Holder) -> bool:
    if desired.link or holder.link_id:
        return seen.link is not None and holder.link_id == seen.link.id
    if seen.program:
        return _supersedes(seen.program, holder)
    # The declared pin is gone: ours, named like it (15 characters are kept), and unpinned.
    name = os.path.basename(desired.prog)[:15]
    return holder.program.ours and not holder.pinned and holder.program.name == name


def _plan_drain(desired: Desired, seen: Observed) -> Iterator[Change]:
    if seen.sockets == 0 or desired.drain == "none":
        return
    before, after = {"sockets": seen.sockets}, {"sockets": 0}
    if desired.drain == "force":
        warning = "data that is queued for sockets in the map is lost, with no error on either side"
        step = Step("delete sockets")
        yield Change("delete sockets in", desired.map, before, after, warning, step)
        return
    if seen.sockets is None:
        raise Failure(
            f"{desired.map} is a sockmap with values of 4 bytes, whose sockets the kernel does not "
            "show, so nobody can wait for them; declare the map with values of 8 bytes, or choose "
            "drain: none or drain: force",
        )
    warning = (
        f"sockets in {desired.map}: {seen.sockets}; they have {desired.drain_timeout} s to close "
        "before the removal gives up, with nothing detached"
    )
    step = Step("wait for sockets")
    yield Change("drain", desired.map, before, after, _and_feeders(seen, warning), step)


def _detach(desired: Desired, seen: Observed, holder: Holder) -> Change:
    warning = ""
    if desired.drain == "none" and seen.sockets != 0:
        count = "unknown" if seen.sockets is None else seen.sockets
        warning = f"sockets that keep the program until they close: {count}"
    if desired.drain != "wait":
        warning = _and_feeders(seen, warning)
    before = _shown(holder.program, desired.link)
    if holder.link_id:
        step = Step("release")
        return Change("detach link", hook(desired), before, None, warning, step)
    step = Step("detach", holder.program.id)
    return Change("detach program", hook(desired), before, None, warning, step)


def _and_feeders(seen: Observed, warning: str) -> str:
    """Whether they put sockets in or have been told to stop is not for the kernel to say."""
    if not seen.feeders:
        return warning
    feeders = f"attached programs that may put more sockets in: {', '.join(seen.feeders)}; "
    feeders += "detach them first, unless they have been told to stop"
    return f"{warning}; {feeders}" if warning else feeders


def _discard(desired: Desired, seen: Observed) -> Iterator[Change]:
    if seen.staged:
        yield Change("discard unfinished link", desired.link, detail=Step("discard"))


def _supersedes(program: Program, holder: Holder) -> bool:
    """What a pin still names is no older version but an attachment of its own."""
    return program.id == holder.program.id or (
        program.supersedes(holder.program) and not holder.pinned
    )
