# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to get an XDP program to an interface, or away from it: pure functions of values.

The rules are those of dev_xdp_attach in net/core/dev.c: an interface has one program in native or
generic mode (and one offloaded); netlink cannot touch a link's program, nor a link netlink's; and
from one mode or way to the other there is a moment without a program.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf import xdp_dispatcher
from ..bpf.info import LinkInfo
from .engine import Change
from .errors import Failure
from .interface import place
from .linked import Program
from .xdp_chain import Chain, Component, names_of

MODES = ("auto", "native", "generic", "offload")


@dataclass(frozen=True)
class Desired:
    """One attachment as declared. ``prog`` and ``link`` are absolute pin paths or empty."""

    interface: str
    netns: str  # a name or an absolute path; empty: the module's own
    prog: str
    link: str
    mode: str
    force: bool
    present: bool
    priority: int | None = None  # of a component; None: as its object says

    @property
    def hook(self) -> str:
        """The hook, for people."""
        return f"{place(self.interface, self.netns)} xdp"


@dataclass(frozen=True)
class Holder:
    """A program on the interface. ``link_id`` is 0 when it is attached over netlink."""

    program: Program
    mode: str
    link_id: int = 0


@dataclass(frozen=True)
class Observed:
    """The interface and the pins."""

    ifindex: int = 0  # 0: there is no such interface
    program: Program | None = None
    link: LinkInfo | None = None
    link_program: Program | None = None
    staged_id: int = 0  # the link that a killed run left waiting for its name
    holders: tuple[Holder, ...] = ()
    native: bool | None = None  # whether the driver takes native mode; None: unknown
    chain: Chain | None = None  # what the dispatcher calls, when a dispatcher is there
    component: Component | None = None  # the declared program, when it can be one
    unfinished: tuple[str, ...] = ()  # what a killed run left between two dispatchers

    def is_pinned(self, holder: Holder) -> bool:
        """Whether the declared pin, or the one it is made from, holds the link."""
        ids = {self.staged_id, self.link.id if self.link else 0} - {0}
        return holder.link_id in ids

    def holder(self, desired: Desired) -> Holder | None:
        """Who has the place that the declared attachment takes."""
        wanted = ("offload",) if desired.mode == "offload" else ("native", "generic")
        for holder in self.holders:
            if holder.mode in wanted:
                return holder
        if desired.mode != "auto":
            return None
        mine = (each for each in self.holders if self.is_pinned(each) or self.declared(each))
        return next(mine, None)

    def declared(self, holder: Holder) -> bool:
        """Whether the holder's program is the declared one."""
        return self.program is not None and self.program.id == holder.program.id


@dataclass(frozen=True)
class Step:
    """What apply does: a verb of its own, and who is expected at the hook."""

    do: str
    holder: Holder | None = None
    components: tuple[Component, ...] = ()
    version: int = 0  # of the dispatcher that was there


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """What leads to the declared attachment. Raises Failure when something forbids it."""
    if not desired.present:
        return list(_plan_absent(desired, observed))
    holder = observed.holder(desired)
    if holder is not None and not observed.is_pinned(holder):
        refuse_foreign(desired, observed, holder)
    if observed.program is None:
        return [_predicted(desired, observed, holder)]
    if desired.link:
        return list(_plan_link(desired, observed, observed.program, holder))
    return list(_plan_direct(desired, observed, observed.program, holder))


def _plan_link(
    desired: Desired, seen: Observed, program: Program, holder: Holder | None
) -> Iterator[Change]:
    if holder is None:
        yield _attach(desired, seen, program)
    elif not holder.link_id or not _fits(desired, holder) or not _is_ours(desired, seen, holder):
        yield _move(desired, seen, program, holder)
    else:
        if seen.link is None or seen.link.id != holder.link_id:
            yield _adopt(desired, seen, holder)
        elif seen.staged_id:
            yield _discard(desired)
        if holder.program.id != program.id:
            before, after = _shown(holder, desired.link), _after(desired, seen, program, holder)
            step = Step("update link", holder)
            yield Change("update link", desired.hook, before, after, detail=step)


def _plan_direct(
    desired: Desired, seen: Observed, program: Program, holder: Holder | None
) -> Iterator[Change]:
    if holder is None:
        yield _attach(desired, seen, program)
    elif holder.link_id or not _fits(desired, holder):
        if holder.link_id and not desired.force:
            raise Failure(
                f"link {holder.link_id} holds {desired.hook} with {holder.program}; set the option "
                "link to its pin to go on with it, or remove it first (state: absent with link)",
                prog_id=holder.program.id,
            )
        yield _move(desired, seen, program, holder)
    elif holder.program.id != program.id:
        before, after = _shown(holder), _after(desired, seen, program, holder)
        step = Step("replace", holder)
        yield Change("replace program", desired.hook, before, after, detail=step)


def _plan_absent(desired: Desired, seen: Observed) -> Iterator[Change]:
    if desired.link:
        if seen.staged_id:
            yield _discard(desired)
        if seen.link is not None:
            held = next((each for each in seen.holders if each.link_id == seen.link.id), None)
            before = _shown(held, desired.link) if held else {"link": desired.link}
            yield Change("detach link", desired.link, before, None, detail=Step("release"))
        return
    for holder in seen.holders:
        if not (desired.force or _is_meant(desired, seen, holder)):
            continue
        if holder.link_id:
            raise Failure(
                f"link {holder.link_id} holds {desired.hook} with {holder.program}; set the option "
                "link to its pin to remove it",
                prog_id=holder.program.id,
            )
        step = Step("detach", holder)
        yield Change("detach program", desired.hook, _shown(holder), None, detail=step)


def _attach(desired: Desired, seen: Observed, program: Program) -> Change:
    after = _after(desired, seen, program, None)
    warning = ""
    if seen.link is not None and seen.link.ifindex:
        warning = (
            f"{desired.link} held a program at another interface (ifindex {seen.link.ifindex}, "
            "perhaps in another netns): it is detached there"
        )
    before = {"link": desired.link, "ifindex": seen.link.ifindex} if seen.link else None
    action = "replace link" if seen.link else "attach program"
    if desired.mode == "auto" and seen.native is False:
        slow = f"the driver of {desired.interface} has no native XDP: attached in generic mode"
        warning = f"{warning}; {slow}" if warning else slow
    return Change(action, desired.hook, before, after, warning, Step("attach"))


def _move(desired: Desired, seen: Observed, program: Program, holder: Holder) -> Change:
    after = _after(desired, seen, program, holder)
    was, now = _way(holder.mode, holder.link_id), _way(after["mode"], int(bool(desired.link)))
    why = f"from {was} to {now}" if was != now else f"from link {holder.link_id} to another"
    warning = (
        f"for a moment {place(desired.interface, desired.netns)} has no XDP program: the kernel "
        f"knows no other way {why}"
    )
    step = Step("move", holder)
    return Change("move program", desired.hook, _shown(holder), after, warning, step)


def _way(mode: str, link_id: int) -> str:
    return f"{mode} mode {'by a link' if link_id else 'over netlink'}"


def _adopt(desired: Desired, seen: Observed, holder: Holder) -> Change:
    warning = ""
    if holder.link_id != seen.staged_id:
        warning = f"link {holder.link_id} was there already and is pinned at {desired.link} now"
    before, after = _shown(holder), _shown(holder, desired.link)
    return Change("pin link", desired.hook, before, after, warning, Step("adopt", holder))


def _discard(desired: Desired) -> Change:
    return Change("discard unfinished link", desired.link, detail=Step("discard"))


def _predicted(desired: Desired, seen: Observed, holder: Holder | None) -> Change:
    after: dict[str, Any] = {"program": desired.prog, "mode": mode_of(desired, seen, holder)}
    if desired.link:
        after["link"] = desired.link
    before = _shown(holder) if holder else None
    warning = f"no program is pinned at {desired.prog} yet; a real run needs it"
    return Change("attach program", desired.hook, before, after, warning, Step("missing"))


def _shown(holder: Holder, link: str = "") -> dict[str, Any]:
    program = holder.program
    shown = {"program": program.name, "prog_id": program.id, "mode": holder.mode}
    if holder.link_id:
        shown["link"] = link or f"id {holder.link_id}"
    return shown


def _after(
    desired: Desired, seen: Observed, program: Program, holder: Holder | None
) -> dict[str, Any]:
    mode = mode_of(desired, seen, holder)
    shown = {"program": program.name, "prog_id": program.id, "mode": mode}
    return {**shown, "link": desired.link} if desired.link else shown


def mode_of(desired: Desired, seen: Observed, holder: Holder | None) -> str:
    """The mode to expect: auto takes what is there, else native where the driver has it."""
    if desired.mode != "auto":
        return desired.mode
    if holder is not None:
        return holder.mode
    return {True: "native", False: "generic", None: "auto"}[seen.native]


def _fits(desired: Desired, holder: Holder) -> bool:
    return desired.mode in ("auto", holder.mode)


def _same_stack(seen: Observed, holder: Holder) -> bool:
    """Ours, and no other stack's; without the declared program nothing is known of the stack."""
    mine = seen.program
    return holder.program.ours and (mine is None or mine.stack == holder.program.stack)


def _is_meant(desired: Desired, seen: Observed, holder: Holder) -> bool:
    """Whether a removal means this one; once the pin is gone it is known by its name (15 bytes)."""
    if not desired.prog or seen.program is not None:
        return seen.declared(holder) or _same_stack(seen, holder)
    return holder.program.ours and holder.program.name == os.path.basename(desired.prog)[:15]


def _is_ours(desired: Desired, seen: Observed, holder: Holder) -> bool:
    return seen.is_pinned(holder) or seen.declared(holder) or _same_stack(seen, holder)


def refuse_foreign(desired: Desired, seen: Observed, holder: Holder) -> None:
    if desired.force or _is_ours(desired, seen, holder):
        return
    program = holder.program
    how = _way(holder.mode, holder.link_id)
    if holder.link_id:
        how += f" ({holder.link_id})"
    whose = "was not loaded by ebpf.fleet"
    if program.ours:
        whose = f"belongs to another stack ({program.stack or 'none'})"
    way_out = (
        "leave the interface to it, detach it with the tool that attached it, or set force: true "
        "to displace it"
    )
    if program.name == xdp_dispatcher.NAME:
        way_out = _beside(desired, seen)
    raise Failure(
        f"{program}, tag {program.tag}, holds {desired.hook} in {how} and {whose}; {way_out}",
        prog_id=program.id,
        prog_name=program.name,
        prog_tag=program.tag,
        mode=holder.mode,
    )


def _beside(desired: Desired, seen: Observed) -> str:
    """The way out when the others are components of a dispatcher."""
    found = seen.chain.components if seen.chain else ()
    runs = ", ".join(names_of(found)) or f"the programs of xdp-loader status {desired.interface}"
    return (
        f"it is the dispatcher of libxdp and runs {runs}; to run beside them, load the program "
        "with type: ext (ebpf.fleet.bpf_prog) and leave out link; or unload them (xdp-loader "
        f"unload {desired.interface} --all), or set force: true to displace them all"
    )
