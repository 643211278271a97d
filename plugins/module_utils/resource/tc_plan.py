# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to get a program to an interface's traffic control: pure functions of values.

A TCX link has a place of its own beside others. A clsact filter is known by its direction,
priority and handle, and the kernel adds the same program again under another handle without a
word: so both are always named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf.info import LinkInfo
from .engine import Change
from .errors import Failure
from .interface import place
from .linked import Program

PRIORITY, HANDLE = 50, 1  # priorities from 49152 down are those that the kernel hands out itself


@dataclass(frozen=True)
class Desired:
    """One attachment as declared. ``prog`` and ``link`` are absolute pin paths or empty."""

    interface: str
    netns: str  # a name or an absolute path; empty: the module's own
    direction: str
    prog: str
    link: str
    priority: int
    handle: int
    force: bool
    present: bool

    @property
    def hook(self) -> str:
        """The hook, for people."""
        return f"{place(self.interface, self.netns)} {self.direction}"

    @property
    def filter(self) -> str:
        """The declared filter, for people, as tc(8) names it."""
        return f"{self.hook} pref {self.priority} handle {self.handle:#x}"


@dataclass(frozen=True)
class Slot:
    """A clsact filter of the direction. Without ``program`` it is no eBPF filter."""

    priority: int
    handle: int
    kind: str
    program: Program | None = None
    direct_action: bool = True
    for_all_protocols: bool = True
    chain: int = 0

    def __str__(self) -> str:
        what = str(self.program) if self.program else f"a {self.kind} filter"
        return f"{what}, pref {self.priority} handle {self.handle:#x}"


@dataclass(frozen=True)
class Link:
    """A program at the TCX hook of the direction; ``id`` 0: attached without a link."""

    program: Program
    id: int


@dataclass(frozen=True)
class Observed:
    """The interface and the pins."""

    ifindex: int = 0  # 0: there is no such interface
    program: Program | None = None
    link: LinkInfo | None = None
    link_program: Program | None = None
    staged_id: int = 0  # the link that a killed run left waiting for its name
    tcx: tuple[Link, ...] = ()
    qdisc: str = ""  # clsact, ingress or none
    created: bool = False  # the qdisc has our mark
    slots: tuple[Slot, ...] = ()
    elsewhere: int = 0  # filters of the other direction, and chains that are not ours

    def pinned(self) -> Link | None:
        """What the declared pin holds, if it is attached at this very hook."""
        link_id = self.link.id if self.link else 0
        return next((each for each in self.tcx if link_id and each.id == link_id), None)

    def slot(self, desired: Desired) -> Slot | None:
        """The filter with the declared priority and handle, whoever's it is."""
        wanted = (desired.priority, desired.handle)
        here = (each for each in self.slots if each.chain == 0)
        return next((each for each in here if (each.priority, each.handle) == wanted), None)


@dataclass(frozen=True)
class Step:
    """What apply does: a verb of its own, and the program or link that it expects."""

    do: str
    id: int = 0


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """What leads to the declared attachment. Raises Failure when something forbids it."""
    if not desired.present:
        return list(_plan_absent(desired, observed))
    if not desired.link:
        _refuse_slot(desired, observed)
    if observed.program is None:
        return [_predicted(desired, observed)]
    if desired.link:
        return list(_plan_link(desired, observed, observed.program))
    return list(_plan_filter(desired, observed, observed.program))


def _plan_link(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    outdated = _outdated(desired, seen, program)
    warning = _beside(desired, seen, program, outdated)
    if outdated:
        both = f"for a moment the link runs beside {outdated}"
        warning = f"{warning}; {both}" if warning else both
    held = seen.pinned()
    if held is None:
        held = _unpinned(desired, seen, program)
        yield _adopt(desired, held) if held else _create(desired, seen, program, warning)
    elif seen.staged_id:
        yield Change("discard unfinished link", desired.link, detail=Step("discard"))
    if held is not None and held.program.id != program.id:
        before, after = _shown(held.program, desired.link), _shown(program, desired.link)
        step = Step("update link", held.program.id)
        yield Change("update link", desired.hook, before, after, warning, step)
    if outdated is not None:
        yield from _clear(desired, seen, outdated)


def _plan_filter(desired: Desired, seen: Observed, program: Program) -> Iterator[Change]:
    for link in seen.tcx:
        if program.supersedes(link.program):
            raise Failure(
                f"link {link.id} attaches {link.program} to {desired.hook} already (TCX), and a "
                "filter beside it would run it twice; set the option link to its pin to go on with "
                "it, or remove it first (state: absent with link)",
                prog_id=link.program.id,
            )
    if not seen.qdisc:
        step = Step("add qdisc")
        yield Change("add clsact qdisc", _device(desired), None, {"qdisc": "clsact"}, "", step)
    slot = seen.slot(desired)
    after = _shown(program)
    if slot is None:
        warning = _beside(desired, seen, program, None)
        yield Change("attach program", desired.filter, None, after, warning, Step("add filter"))
    elif _slot_id(slot) != program.id or not slot.direct_action:
        step = Step("replace filter", _slot_id(slot))
        yield Change("replace program", desired.filter, _shown_slot(slot), after, detail=step)


def _plan_absent(desired: Desired, seen: Observed) -> Iterator[Change]:
    if desired.link:
        if seen.staged_id:
            yield Change("discard unfinished link", desired.link, detail=Step("discard"))
        if seen.link is not None:
            held = seen.pinned()
            before = _shown(held.program, desired.link) if held else {"link": desired.link}
            yield Change("detach link", desired.link, before, None, detail=Step("release"))
        return
    slot = seen.slot(desired)
    if slot is not None and (desired.force or _is_meant(desired, seen, slot)):
        yield from _clear(desired, seen, slot)
    elif _is_unused(seen, 0):
        yield _remove_qdisc(desired)


def _clear(desired: Desired, seen: Observed, slot: Slot) -> Iterator[Change]:
    step = Step("delete filter", _slot_id(slot))
    yield Change("detach program", desired.filter, _shown_slot(slot), None, detail=step)
    if _is_unused(seen, 1):
        yield _remove_qdisc(desired)


def _is_unused(seen: Observed, filters: int) -> bool:
    """Whether the qdisc is of our making and has nothing but ``filters`` filters of ours."""
    return seen.created and not seen.elsewhere and len(seen.slots) == filters


def _remove_qdisc(desired: Desired) -> Change:
    step = Step("remove qdisc")
    return Change("remove clsact qdisc", _device(desired), {"qdisc": "clsact"}, None, "", step)


def _create(desired: Desired, seen: Observed, program: Program, warning: str) -> Change:
    for link in seen.tcx:
        if link.program.id == program.id:
            raise Failure(
                f"{program} is attached to {desired.hook} without a link (TCX), and the kernel "
                f"takes it once only; detach it first (bpftool net detach tcx_{desired.direction} "
                f"dev {desired.interface})",
                prog_id=program.id,
            )
    before = None
    if seen.link is not None:
        before = {"link": desired.link, "ifindex": seen.link.ifindex}
        if seen.link.ifindex:
            warning = (
                f"{desired.link} held a program at another place ({seen.link.attach_type} of "
                f"ifindex {seen.link.ifindex}): it is detached there"
            )
    action = "replace link" if seen.link else "attach program"
    after = _shown(program, desired.link)
    return Change(action, desired.hook, before, after, warning, Step("create link"))


def _unpinned(desired: Desired, seen: Observed, program: Program) -> Link | None:
    """A link that only lacks its name: of a killed run, or one that runs the program already."""
    staged = (each for each in seen.tcx if each.id and each.id == seen.staged_id)
    same = (each for each in seen.tcx if each.id and each.program.id == program.id)
    return next(staged, None) or next(same, None)


def _adopt(desired: Desired, link: Link) -> Change:
    after = _shown(link.program, desired.link)
    warning = f"link {link.id} was there already and is pinned at {desired.link} now"
    return Change("pin link", desired.hook, None, after, warning, Step("adopt", link.id))


def _predicted(desired: Desired, seen: Observed) -> Change:
    after = {"program": desired.prog}
    if desired.link:
        after["link"] = desired.link
    target = desired.hook if desired.link else desired.filter
    warning = f"no program is pinned at {desired.prog} yet; a real run needs it"
    return Change("attach program", target, None, after, warning, Step("missing"))


def _shown(program: Program, link: str = "") -> dict[str, Any]:
    shown = {"program": program.name, "prog_id": program.id}
    return {**shown, "link": link} if link else shown


def _shown_slot(slot: Slot) -> dict[str, Any]:
    shown = _shown(slot.program) if slot.program else {"program": slot.kind}
    return shown if slot.direct_action else {**shown, "direct_action": False}


def _device(desired: Desired) -> str:
    return place(desired.interface, desired.netns)


def _slot_id(slot: Slot) -> int:
    return slot.program.id if slot.program else 0


def _outdated(desired: Desired, seen: Observed, program: Program) -> Slot | None:
    """The declared filter, when the link takes over from it."""
    slot = seen.slot(desired)
    mine = slot is not None and slot.program is not None and program.supersedes(slot.program)
    return slot if mine else None


def _beside(desired: Desired, seen: Observed, program: Program, gone: Slot | None) -> str:
    """What else runs this program, or an earlier version of it, at the same hook."""
    mine = seen.pinned()
    twice = [
        str(slot)
        for slot in seen.slots
        if slot != gone and slot.program is not None and program.supersedes(slot.program)
    ]
    twice += [
        f"{link.program}, link {link.id}"
        for link in seen.tcx
        if link != mine and link.program.id != program.id and program.supersedes(link.program)
    ]
    if not twice:
        return ""
    return f"{desired.hook} runs it a second time: {'; '.join(twice)}; remove what is not wanted"


def _is_meant(desired: Desired, seen: Observed, slot: Slot) -> bool:
    """Whether a removal means this one; once the pin is gone it is known by its name (15 bytes)."""
    if not desired.prog or seen.program is not None:
        return _is_ours(seen, slot)
    program = slot.program
    name = os.path.basename(desired.prog)[:15]
    return program is not None and program.ours and program.name == name


def is_declared(seen: Observed, slot: Slot) -> bool:
    """Whether the filter runs the declared program, or while none is declared one of ours."""
    if seen.program is None:
        return slot.program is not None and slot.program.ours
    return slot.program is not None and slot.program.id == seen.program.id


def _is_ours(seen: Observed, slot: Slot) -> bool:
    """The declared program, or one of ours that is no other stack's."""
    program, mine = slot.program, seen.program
    if program is None:
        return False
    if mine is not None and mine.id == program.id:
        return True
    return program.ours and (mine is None or mine.stack == program.stack)


def _refuse_slot(desired: Desired, seen: Observed) -> None:
    if seen.qdisc == "ingress" and desired.direction == "egress":
        raise Failure(
            f"{_device(desired)} has an ingress qdisc, which has no egress, and a clsact qdisc "
            "cannot be beside it; its owner has to replace it (tc qdisc del dev "
            f"{desired.interface} ingress), or set link, which needs no qdisc (Linux 6.6)"
        )
    slot = seen.slot(desired)
    for other in seen.slots:
        same = other.chain == 0 and other.priority == desired.priority
        if same and (other.kind != "bpf" or not other.for_all_protocols):
            raise Failure(
                f"{desired.hook} has {other}, and filters of one priority are of one kind and "
                "protocol; declare another priority"
            )
    if slot is None or desired.force or _is_ours(seen, slot):
        return
    program = slot.program
    whose = "which was not loaded by ebpf.fleet"
    if program is not None and program.ours:
        whose = f"which belongs to another stack ({program.stack or 'none'})"
    tag = f", tag {program.tag}" if program else ""
    raise Failure(
        f"{desired.hook} has {slot}{tag}, {whose}; declare another priority or handle, or set "
        "force: true to displace it",
        prog_id=_slot_id(slot),
        prog_name=program.name if program else "",
        prog_tag=program.tag if program else "",
    )
