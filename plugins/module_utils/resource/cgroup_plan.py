# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to get a program to a cgroup's hook, or away from it: pure functions of values.

The rules are those of __cgroup_bpf_attach in kernel/bpf/cgroup.c: links and F_ALLOW_MULTI share a
hook; with F_ALLOW_OVERRIDE or no flag the hook has one program, which another silently replaces.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf import hooks
from ..bpf.info import LinkInfo
from .engine import Change
from .errors import Failure
from .linked import Program

FLAGS = {"multi": hooks.F_ALLOW_MULTI, "override": hooks.F_ALLOW_OVERRIDE, "exclusive": 0}
MODES = ("link", *FLAGS)


@dataclass(frozen=True)
class Desired:
    """One attachment as declared. ``prog`` and ``link`` are absolute pin paths or empty."""

    cgroup: str  # absolute, or relative to the cgroup2 mount
    prog: str
    attach_type: str  # empty: what the program fits
    link: str
    mode: str
    present: bool
    allow_root: bool
    create_cgroup: bool = False


@dataclass(frozen=True)
class Holder:
    """One program at the hook. ``link_id`` is 0 when it is attached directly."""

    program: Program
    link_id: int = 0
    pinned: bool = False  # ours, and some pin still names it: it is not an outdated version


@dataclass(frozen=True)
class Observed:
    """The hook, the pins, and what above the cgroup forbids to attach."""

    path: str
    cgroup_id: int = 0  # 0: there is no such cgroup
    attach_type: str = ""  # empty: unknown until the program is loaded
    program: Program | None = None
    link: LinkInfo | None = None
    link_program: Program | None = None
    link_cgroup: str = ""  # where the pinned link is attached, if it is elsewhere
    staged: bool = False  # a killed run left a link waiting for its name
    holders: tuple[Holder, ...] = ()
    flags: int = 0
    blocker: str = ""  # the cgroup above, and its program, that let nothing attach below

    @property
    def hook(self) -> str:
        """The hook, for people."""
        return f"{self.path} {self.attach_type}".rstrip()

    @property
    def link_is_here(self) -> bool:
        """Whether the pinned link holds a program at this very hook."""
        return (
            self.link is not None
            and self.cgroup_id != 0
            and self.link.cgroup_id == self.cgroup_id
            and self.link.attach_type == self.attach_type
        )

    @property
    def mode(self) -> str:
        """How the hook is used now: the mode of what is attached directly, "" when it is free."""
        if not self.holders:
            return ""
        return next(name for name, flag in FLAGS.items() if self.flags & 3 == flag)


@dataclass(frozen=True)
class Step:
    """What apply does: a verb of its own, and the program or link that the step expects."""

    do: str
    id: int = 0


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """What leads to the declared attachment. Raises Failure when something forbids it."""
    if not desired.present:
        return list(_plan_absent(desired, observed))
    made = [] if observed.cgroup_id else [_create(observed)]
    if observed.program is None:
        return [*made, _predicted(desired, observed)]
    if desired.mode == "link":
        return [*made, *_plan_link(desired, observed, observed.program)]
    return [*made, *_plan_direct(desired, observed, observed.program)]


def _create(seen: Observed) -> Change:
    after = {"cgroup": seen.path}
    return Change("create cgroup", seen.path, None, after, detail=Step("create cgroup"))


def _shown(program: Program, mode: str, link: str = "") -> Mapping[str, Any]:
    shown = {"program": program.name, "prog_id": program.id, "mode": mode}
    return {**shown, "link": link} if link else shown


def _predicted(desired: Desired, seen: Observed) -> Change:
    after = {"program": desired.prog, "mode": desired.mode}
    if desired.link:
        after["link"] = desired.link
    before = _shown(seen.link_program, "link", desired.link) if seen.link_program else None
    warning = f"no program is pinned at {desired.prog} yet; a real run needs it"
    return Change("attach program", seen.hook, before, after, warning, Step("missing"))


def _plan_link(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    outdated = [holder for holder in _directly(seen) if _supersedes(program, holder)]
    after = _shown(program, "link", desired.link)
    if not seen.link_is_here:
        _refuse_mixed(desired, seen)
        both = "for a moment both the link and the direct attachment run" if outdated else ""
        yield _new_link(desired, seen, program, both)
    elif seen.link is not None and seen.link.prog_id != program.id:
        held = seen.link_program
        before = _shown(held, "link", desired.link) if held else None
        step = Step("update link", seen.link.prog_id)
        yield Change("update link", seen.hook, before, after, detail=step)
    if seen.link_is_here:
        yield from _discard(desired, seen)
    yield from (_detach(seen, holder) for holder in outdated)


def _discard(desired: Desired, seen: Observed) -> Iterator[Change]:
    """A new link takes the unfinished one's place by itself; otherwise it is a step."""
    if seen.staged:
        yield Change("discard unfinished link", desired.link, detail=Step("discard"))


def _new_link(desired: Desired, seen: Observed, program: Program, warning: str) -> Change:
    """Create a link, or adopt one that attaches the program here already."""
    after = _shown(program, "link", desired.link)
    for holder in seen.holders:
        if holder.link_id and holder.program.id == program.id:
            warning = (
                f"link {holder.link_id} attaches {program} to {seen.hook} already; it is pinned at "
                f"{desired.link} now, instead of running the program twice"
            )
            step = Step("adopt link", holder.link_id)
            return Change("pin link", seen.hook, None, after, warning, step)
    _refuse_blocked(seen)
    if seen.link is None:
        return Change("attach program", seen.hook, None, after, warning, Step("create link"))
    was = seen.link_cgroup or "a cgroup that is gone"
    before = {"link": desired.link, "cgroup": was, "attach_type": seen.link.attach_type}
    if seen.link_cgroup:
        warning = f"{desired.link} held a program at {was} {seen.link.attach_type}: detached there"
    return Change("replace link", seen.hook, before, after, warning, Step("create link"))


def _plan_direct(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    _refuse_mixed(desired, seen)
    for holder in seen.holders:
        if holder.link_id and holder.program.id == program.id and not seen.link_is_here:
            raise Failure(
                f"link {holder.link_id} attaches {program} to {seen.hook} already; to exchange it "
                "for a direct attachment declare the pin of that link with the option link"
            )
    outdated = [holder for holder in _directly(seen) if _supersedes(program, holder)]
    if any(holder.program.id == program.id for holder in outdated):
        outdated = [holder for holder in outdated if holder.program.id != program.id]
    elif desired.mode != "multi" and seen.holders and not outdated:
        raise Failure(
            f"{seen.holders[0].program} holds {seen.hook} with mode {seen.mode}, and another one "
            "would silently replace it; detach it first, or agree on mode link",
            prog_id=seen.holders[0].program.id,
        )
    else:
        _refuse_blocked(seen)
        yield _attach(desired, seen, program, outdated[0] if outdated else None)
        outdated = outdated[1:]
    yield from (_detach(seen, holder) for holder in outdated)
    if seen.link is not None:
        before = _link_before(desired, seen)
        yield Change("detach link", desired.link, before, None, detail=Step("release"))
    yield from _discard(desired, seen)


def _attach(desired: Desired, seen: Observed, program: Program, old: Holder | None) -> Change:
    after = _shown(program, desired.mode)
    if old is not None:
        before = _shown(old.program, desired.mode)
        step = Step("replace program", old.program.id)
        return Change("replace program", seen.hook, before, after, detail=step)
    warning = ""
    if desired.mode == "exclusive":
        warning = f"from now on nothing can be attached to {seen.attach_type} below {seen.path}"
    elif seen.link_is_here:
        warning = "for a moment both the link and the direct attachment run"
    return Change("attach program", seen.hook, None, after, warning, Step("attach"))


def _plan_absent(desired: Desired, seen: Observed) -> Iterator[Change]:
    if seen.link is not None:
        before = _link_before(desired, seen)
        yield Change("detach link", desired.link, before, None, detail=Step("release"))
    yield from _discard(desired, seen)
    if desired.mode == "link":
        return
    for holder in _directly(seen):
        if _supersedes(seen.program, holder) if seen.program else _looks_like(desired, holder):
            yield _detach(seen, holder)


def _link_before(desired: Desired, seen: Observed) -> Mapping[str, Any]:
    where = seen.path if seen.link_is_here else seen.link_cgroup or "a cgroup that is gone"
    shown = _shown(seen.link_program, "link", desired.link) if seen.link_program else {}
    return {**shown, "cgroup": where}


def _detach(seen: Observed, holder: Holder) -> Change:
    before = _shown(holder.program, seen.mode)
    step = Step("detach", holder.program.id)
    return Change("detach program", f"{seen.hook} mode {seen.mode}", before, None, detail=step)


def _directly(seen: Observed) -> Iterator[Holder]:
    return (holder for holder in seen.holders if not holder.link_id)


def _supersedes(program: Program, holder: Holder) -> bool:
    """What a pin still names is no older version but an attachment of its own."""
    return program.id == holder.program.id or (
        program.supersedes(holder.program) and not holder.pinned
    )


def _looks_like(desired: Desired, holder: Holder) -> bool:
    """With the declared pin gone: ours, named like it (15 characters are kept), and unpinned."""
    name = os.path.basename(desired.prog)[:15]
    return holder.program.ours and not holder.pinned and holder.program.name == name


def _refuse_blocked(seen: Observed) -> None:
    if seen.blocker:
        raise Failure(
            f"nothing can be attached to {seen.hook}: {seen.blocker}, which forbids it for every "
            "cgroup below; that one has to be attached with F_ALLOW_MULTI (mode multi) or by a link"
        )


def _refuse_mixed(desired: Desired, seen: Observed) -> None:
    """A hook is used one way: links and F_ALLOW_MULTI together, or one program with other flags."""
    wanted = "multi" if desired.mode == "link" else desired.mode
    if seen.mode in ("", wanted):
        return
    holder = seen.holders[0]
    how = f"link {holder.link_id}" if holder.link_id else f"mode {seen.mode}"
    mine = holder.program.ours or (
        seen.program is not None and holder.program.id == seen.program.id
    )
    if mine:
        way_out = (
            "there is no way over without a gap: detach it first (state: absent with what it was "
            f"attached with), then attach with mode {desired.mode}"
        )
    elif seen.mode == "multi":
        way_out = "it is foreign and left alone; declare mode link or multi, which share the hook"
    else:
        way_out = "it is foreign and left alone; its owner has to attach it with mode multi"
    raise Failure(
        f"{holder.program} is attached to {seen.hook} with {how}, and mode {desired.mode} cannot "
        f"share the hook with it (EPERM); {way_out}",
        prog_id=holder.program.id,
    )
