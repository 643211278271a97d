# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A program in an interface's traffic control, by a TCX link or as a clsact filter.

The rules are in tc_plan.
"""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bpf import features, hooks, info, links, netns, pins, rtnetlink, tc
from . import interface, linked, paths, tc_plan
from .engine import Change
from .errors import Failure, from_os_error
from .linked import Program
from .tc_plan import HANDLE, PRIORITY, Desired, Link, Observed, Slot, Step

plan = tc_plan.plan

# A chain with this index, which no packet enters, marks a qdisc that was added here. It lives and
# dies with the qdisc, where a note in a file would outlive it.
_MARK = 0x0EBF1EE7

_LO = 1  # ifindex of lo in every network namespace


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for what cannot be meant."""
    prog, link = params.get("prog") or "", params.get("link") or ""
    present = (params.get("state") or "present") == "present"
    if present and not prog:
        raise Failure("state present needs the pin of a program: set the option prog")
    return Desired(
        params["interface"],
        interface.check_netns(params.get("netns") or ""),
        params["direction"],
        paths.pin_path(prog) if prog else "",
        paths.pin_path(link) if link else "",
        _number("priority", params.get("priority"), PRIORITY, 0xFFFF),
        _number("handle", params.get("handle"), HANDLE, 0x7FFFFFFF),
        bool(params.get("force")),
        present,
    )


def _number(name: str, value: int | None, default: int, largest: int) -> int:
    if value is None:
        return default
    if not 1 <= value <= largest:
        raise Failure(f"{name} {value} is out of range; set a number from 1 to {largest}")
    return value


def observe(desired: Desired) -> Observed:
    """Read the pins and the interface. Raises Failure when one is not what it has to be."""
    program = linked.pinned_program(desired.prog) if desired.prog else None
    if desired.present:
        _require_type(desired, program)
    if desired.present and desired.link:
        paths.check_parent(desired.link)
        require_tcx(desired, features.tcx(), os.uname().release)
    link = linked.pinned_link(desired.link, "tcx", program) if desired.link else None
    held = linked.program(link.prog_id) if link else None
    seen = Observed(0, program, link, held, _staged_id(desired))
    if not desired.present and not interface.exists(desired.netns):
        return seen
    with interface.in_netns(desired.netns):
        if not desired.present and rtnetlink.interface(desired.interface) is None:
            return seen
        found = interface.find(desired.interface, desired.netns)
        return _read_hook(desired, dataclasses.replace(seen, ifindex=found.ifindex))


def _require_type(desired: Desired, program: Program | None) -> None:
    if program is not None and program.type != "sched_cls":
        raise Failure(
            f"the program at {desired.prog} ({program.name}, {program.type}) is none for traffic "
            'control; declare one that was loaded from SEC("tc"), or with type: sched_cls'
        )


def require_tcx(desired: Desired, supported: bool, release: str) -> None:
    """Raise Failure on a kernel without TCX."""
    if not supported:
        raise Failure(
            f"this kernel ({release}) has no TCX links, which Linux 6.6 has; leave link out, and "
            f"{desired.interface} gets a clsact qdisc and a filter with a fixed priority and handle"
        )


def _staged_id(desired: Desired) -> int:
    fd = linked.open_pin(pins.staging_path(desired.link), "link") if desired.link else None
    if fd is None:
        return 0
    with fd:
        return info.link(fd).id


def _read_hook(desired: Desired, seen: Observed) -> Observed:
    gone = linked.out_of_sight(desired.present, desired.link)
    kind = tc.qdisc(seen.ifindex)
    # An ingress qdisc has one list and shows it for both directions.
    directions = tc.DIRECTIONS if kind == "clsact" else ("ingress",) if kind else ()
    found = {each: tc.filters(seen.ifindex, each) for each in directions}
    chains = [index for each in directions for index in tc.chains(seen.ifindex, each)]
    others = sum(len(found[each]) for each in directions if each != desired.direction)
    return dataclasses.replace(
        seen,
        tcx=tuple(_tcx(seen.ifindex, desired.direction, gone)),
        qdisc=kind,
        created=_MARK in chains,
        slots=tuple(_slot(each) for each in found.get(desired.direction, ())),
        elsewhere=others + sum(index not in (0, _MARK) for index in chains),
    )


def _tcx(ifindex: int, direction: str, gone: frozenset[int]) -> Iterator[Link]:
    try:
        attached = hooks.query(ifindex, f"tcx_{direction}", link_ids=True)
    except OSError as error:
        if error.errno == errno.EINVAL:  # before Linux 6.6
            return
        raise
    for prog_id, link_id in zip(attached.prog_ids, attached.link_ids):
        if link_id not in gone:
            yield Link(linked.program(prog_id), link_id)


def _slot(found: tc.Filter) -> Slot:
    return Slot(
        found.priority,
        found.handle,
        found.kind,
        linked.program(found.prog_id) if found.prog_id else None,
        found.direct_action,
        found.for_all_protocols,
        found.chain,
    )


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Attach the program to ``lo`` of a network namespace made for it."""
    if not any(change.detail.do in ("create link", "add filter") for change in changes):
        return
    with linked.require_program(desired.prog) as prog, netns.scratch():
        try:
            if desired.link:
                links.create(prog, _LO, f"tcx_{desired.direction}").close()
            else:
                _add_qdisc(_LO)
                tc.add_filter(_LO, desired.direction, desired.priority, desired.handle, prog, "")
        except OSError as error:
            attempt = f"attach the program at {desired.prog} to an interface, as a rehearsal"
            raise from_os_error(error, attempt, _advice(error)) from error


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the changes out in their order: what attaches comes before what detaches."""
    seen = observe(desired)
    for change in changes:
        with interface.in_netns(desired.netns):
            try:
                _apply(desired, seen, change.detail)
            except OSError as error:
                raise from_os_error(error, str(change), _advice(error)) from error


def _advice(error: OSError) -> str:
    return {
        errno.EEXIST: "something else changed the interface meanwhile; run it again",
        errno.ENOENT: "something else changed the interface meanwhile (run it again), or the "
        "kernel has no clsact (CONFIG_NET_SCH_INGRESS) or no BPF filters (CONFIG_NET_CLS_BPF)",
    }.get(error.errno or 0, "")


def _apply(desired: Desired, seen: Observed, step: Step) -> None:
    if step.do == "release":
        linked.release(desired.link)
    elif step.do == "discard":
        linked.discard_staged(desired.link)
    elif step.do == "adopt":
        linked.adopt(desired.link, step.id)
    elif step.do == "add qdisc":
        _add_qdisc(seen.ifindex)
    elif step.do == "remove qdisc":
        tc.delete_clsact(seen.ifindex)
    elif step.do == "delete filter":
        _expect(desired, seen, step)
        tc.delete_filter(seen.ifindex, desired.direction, desired.priority, desired.handle)
    else:
        _apply_new(desired, seen, step)


def _apply_new(desired: Desired, seen: Observed, step: Step) -> None:
    with linked.require_program(desired.prog) as prog:
        name = info.program(prog).name
        if step.do == "create link":
            hook = f"tcx_{desired.direction}"
            linked.pin_new(desired.link, lambda: links.create(prog, seen.ifindex, hook))
        elif step.do == "update link":
            linked.swap(desired.link, prog, step.id)
        elif step.do == "add filter":
            place = (seen.ifindex, desired.direction, desired.priority, desired.handle)
            tc.add_filter(*place, prog, name)
        elif step.do == "replace filter":
            _expect(desired, seen, step)
            place = (seen.ifindex, desired.direction, desired.priority, desired.handle)
            tc.replace_filter(*place, prog, name)


def _add_qdisc(ifindex: int) -> None:
    tc.add_clsact(ifindex)
    tc.add_chain(ifindex, "ingress", _MARK)


def _expect(desired: Desired, seen: Observed, step: Step) -> None:
    """The kernel takes no expected program for a filter, so look just before."""
    slot = _read_hook(desired, seen).slot(desired)
    if slot is None or (slot.program.id if slot.program else 0) != step.id:
        raise Failure(
            f"something else changed {desired.filter} meanwhile: it is now {slot or 'gone'}; "
            "run it again"
        )


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The attachment as the kernel has it; ids are null when it does not exist."""
    link = observed.pinned() if desired.link else None
    slot = None if desired.link else observed.slot(desired)
    if slot is not None and not tc_plan.is_declared(observed, slot):
        slot = None
    program = link.program if link else slot.program if slot else None
    return {
        "attachment": {
            "interface": desired.interface,
            "ifindex": observed.ifindex or None,
            "netns": desired.netns or None,
            "direction": desired.direction,
            "mode": "tcx" if link else "clsact" if slot else None,
            "priority": slot.priority if slot else None,
            "handle": slot.handle if slot else None,
            "prog_id": program.id if program else None,
            "prog_name": program.name if program else None,
            "prog_tag": program.tag if program else None,
            "link_id": link.id if link else None,
            "link": desired.link if link else None,
            "others": _others(observed, link, slot),
        }
    }


def _others(observed: Observed, link: Link | None, slot: Slot | None) -> list[dict[str, Any]]:
    """What else sees the packets of this direction, in order: TCX comes before the qdisc."""
    return [
        {**_other(each.program), "link_id": each.id or None}
        for each in observed.tcx
        if each is not link
    ] + [
        {**_other(each.program), "priority": each.priority, "handle": each.handle}
        for each in observed.slots
        if each is not slot
    ]


def _other(program: Program | None) -> dict[str, Any]:
    return {
        "prog_id": program.id if program else None,
        "prog_name": program.name if program else None,
        "ours": program.ours if program else False,
    }
