# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""An XDP program attached to an interface, by a link or over netlink. The rules are in xdp_plan."""

from __future__ import annotations

import contextlib
import errno
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..bpf import info, journal, links, netns, pins, rtnetlink, xdp
from ..bpf.info import LinkInfo
from ..bpf.syscall import Fd
from . import interface, linked, paths, xdp_components, xdp_dispatch, xdp_plan
from .engine import Change
from .errors import Failure, from_os_error
from .linked import Program
from .xdp_chain import Chain, Component, described
from .xdp_plan import Desired, Holder, Observed, Step

# With these a driver says that it has no native mode, or none with its settings as they are.
_REFUSALS = {errno.EOPNOTSUPP, errno.EINVAL, errno.ERANGE, errno.ENOSPC, errno.ENOMEM, 524}

_LO = 1  # ifindex of lo in every network namespace

MadeT = TypeVar("MadeT")


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for what cannot be meant."""
    prog, link = params.get("prog") or "", params.get("link") or ""
    present = (params.get("state") or "present") == "present"
    if present and not prog:
        raise Failure("state present needs the pin of a program: set the option prog")
    return Desired(
        params["interface"],
        interface.check_netns(params.get("netns") or ""),
        paths.pin_path(prog) if prog else "",
        paths.pin_path(link) if link else "",
        params.get("mode") or "auto",
        bool(params.get("force")),
        present,
        _priority(params.get("priority")),
    )


def _priority(declared: int | None) -> int | None:
    if declared is not None and not 0 <= declared < 1 << 31:
        raise Failure(f"priority: {declared} is no number from 0 to 2147483647")
    return declared


def observe(desired: Desired) -> Observed:
    """Read the pins and the interface. Raises Failure when one is not what it has to be."""
    program = linked.pinned_program(desired.prog) if desired.prog else None
    if desired.present:
        _require_xdp(desired, program)
        if desired.link:
            paths.check_parent(desired.link)
    link = linked.pinned_link(desired.link, "xdp", program) if desired.link else None
    held = linked.program(link.prog_id) if link else None
    staged = _staged_id(desired)
    if not desired.present and not interface.exists(desired.netns):
        return Observed(0, program, link, held, staged)
    with interface.in_netns(desired.netns), xdp_dispatch.locked():
        if not desired.present and rtnetlink.interface(desired.interface) is None:
            return Observed(0, program, link, held, staged)
        found = interface.find(desired.interface, desired.netns)
        gone = linked.out_of_sight(desired.present, desired.link)
        holders = tuple(_holders(found, link, gone))
        return Observed(
            *(found.ifindex, program, link, held, staged, holders),
            native=xdp.native_support(found.ifindex),
            chain=_chain(found.ifindex, holders),
            component=_component(program),
            unfinished=xdp_dispatch.unfinished(found.ifindex),
        )


def _chain(ifindex: int, holders: Sequence[Holder]) -> Chain | None:
    chains = (xdp_dispatch.read(ifindex, holder.program.id) for holder in holders)
    return next((chain for chain in chains if chain), None)


def _component(program: Program | None) -> Component | None:
    is_one = program is not None and program.type == "ext"
    return xdp_dispatch.component(program.id) if program and is_one else None


def _require_xdp(desired: Desired, program: Program | None) -> None:
    if program is not None and program.type not in ("xdp", "ext"):
        raise Failure(
            f"the program at {desired.prog} ({program.name}, {program.type}) is no XDP program; "
            'declare one that was loaded from SEC("xdp"), or with type: xdp'
        )


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """What leads to what is declared. Raises Failure when something forbids it."""
    changes = [
        Change("discard unfinished dispatcher", marker, detail=Step("unfinished"))
        for marker in observed.unfinished
    ]
    kind = xdp_components if xdp_components.concern(desired, observed) else xdp_plan
    return [*changes, *kind.plan(desired, observed)]


def _staged_id(desired: Desired) -> int:
    fd = linked.open_pin(pins.staging_path(desired.link), "link") if desired.link else None
    if fd is None:
        return 0
    with fd:
        return info.link(fd).id


def _holders(
    found: rtnetlink.Interface, pinned: LinkInfo | None, gone: frozenset[int]
) -> Iterator[Holder]:
    for mode, prog_id in xdp.attached(found).items():
        link_id = 0
        if xdp.held_by_link(found.ifindex, mode):
            link_id = _link_id(found.ifindex, prog_id, pinned)
            if link_id in gone:
                continue
        yield Holder(linked.program(prog_id), mode, link_id)


def _link_id(ifindex: int, prog_id: int, pinned: LinkInfo | None) -> int:
    """The link that holds the program; of several that look alike (other netns), the pinned one."""
    alike = [
        link.id
        for link in info.links()
        if (link.type, link.ifindex, link.prog_id) == ("xdp", ifindex, prog_id)
    ]
    if pinned is not None and pinned.id in alike:
        return pinned.id
    if not alike:
        raise Failure("the XDP link changed while it was read; run it again")
    return alike[0]


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Attach the program to ``lo`` of a network namespace made for it, and ask the driver."""
    steps = [change.detail for change in changes]
    shared = [step for step in steps if step.do == "components" and step.components]
    if not shared and not any(step.do in ("attach", "move") for step in steps):
        return
    _require_native(desired)
    if shared:
        _rehearse_components(desired, shared[0])
        return
    if desired.mode == "offload":
        return  # such a program is bound to its device and fits no other
    with linked.require_program(desired.prog) as prog, netns.scratch():
        try:
            if desired.link:
                xdp.create_link(prog, _LO, "generic").close()
            else:
                xdp.set_program(_LO, "generic", prog, None)
        except OSError as error:
            attempt = f"attach the program at {desired.prog} to an interface, as a rehearsal"
            raise from_os_error(error, attempt, _advice(desired, error)) from error


def _rehearse_components(desired: Desired, step: Step) -> None:
    with netns.scratch(), _explained(desired, "attach a dispatcher, as a rehearsal"):
        xdp_dispatch.rehearse(
            step.components,
            step.version,
            lambda dispatcher: xdp.set_program(_LO, "generic", dispatcher, None),
        )


def _require_native(desired: Desired) -> None:
    if desired.mode != "native":
        return
    with interface.in_netns(desired.netns):
        found = interface.find(desired.interface, desired.netns)
        if xdp.native_support(found.ifindex) is False and "native" not in xdp.attached(found):
            raise Failure(
                f"the driver of {interface.place(desired.interface, desired.netns)} has no native "
                "XDP as the interface is now; declare mode: auto or generic"
            )


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the changes out; where there is a gap, a failure puts the old program back."""
    steps = {change.detail.do for change in changes}
    if "move" in steps:
        rehearse(desired, changes)
    elif steps & {"attach", "components"}:
        _require_native(desired)
    seen = observe(desired)
    for change in changes:
        with _explained(desired, str(change)), interface.in_netns(desired.netns):
            if change.detail.do == "unfinished":
                xdp_dispatch.discard(change.target, seen.chain.prog_id if seen.chain else 0)
            else:
                _apply(desired, seen, change.detail)


@contextlib.contextmanager
def _explained(desired: Desired, attempt: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_os_error(error, attempt, _advice(desired, error)) from error


def _advice(desired: Desired, error: OSError) -> str:
    if error.errno in (errno.EEXIST, errno.EBUSY):
        return "something else changed the interface meanwhile; run it again"
    if error.errno in _REFUSALS and desired.mode == "offload":
        return "the program has to be loaded for this device, and the device has to run programs"
    if error.errno in _REFUSALS and desired.mode == "native":
        return "change what the driver names, or declare mode: auto or generic"
    if error.errno == errno.EINVAL:
        return "programs for a devmap or cpumap entry cannot be attached to an interface"
    return ""


def _apply(desired: Desired, seen: Observed, step: Step) -> None:
    holder = step.holder
    if step.do == "release":
        linked.release(desired.link)
    elif step.do == "discard":
        linked.discard_staged(desired.link)
    elif step.do == "missing":
        linked.require_program(desired.prog).close()
    elif step.do == "components":
        _share(desired, seen.ifindex, step)
    elif holder is None:
        with linked.require_program(desired.prog) as prog:
            _attach(desired.link, seen.ifindex, prog, _modes(desired, None))
    elif step.do == "detach":
        with info.open_program(holder.program.id) as old:
            xdp.set_program(seen.ifindex, holder.mode, None, old)
    elif step.do == "adopt":
        linked.adopt(desired.link, holder.link_id)
    else:
        with linked.require_program(desired.prog) as prog:
            _take_over(desired, seen, step.do, holder, prog)


def _share(desired: Desired, ifindex: int, step: Step) -> None:
    """Let a new dispatcher take the place of what the plan saw, or let there be none."""
    holder = step.holder

    def attach(dispatcher: Fd | None) -> None:
        if holder is not None:
            with info.open_program(holder.program.id) as old:
                xdp.set_program(ifindex, holder.mode, dispatcher, old)
        elif dispatcher is not None:
            _attach(desired.link, ifindex, dispatcher, _modes(desired, None))

    old_id = holder.program.id if holder else 0
    xdp_dispatch.swap(ifindex, old_id, step.components, step.version, attach)


def _take_over(desired: Desired, seen: Observed, do: str, holder: Holder, prog: Fd) -> None:
    if do == "update link":
        linked.swap(desired.link, prog, holder.program.id)
    elif do == "replace":
        with info.open_program(holder.program.id) as old:
            xdp.set_program(seen.ifindex, holder.mode, prog, old)
    else:
        _move(desired, seen, holder, prog)


def _move(desired: Desired, seen: Observed, holder: Holder, prog: Fd) -> None:
    """Detach, then attach; when that fails, attach the old program as it was.

    Only a foreign link that was displaced cannot come back: netlink attaches its program then.
    Nor can a link of ours: a new one has its name then.
    """
    ifindex, by_our_link = seen.ifindex, seen.link is not None and seen.link.id == holder.link_id
    with info.open_program(holder.program.id) as old, journal.recording() as log:
        kept, link = journal.hold(old), desired.link if by_our_link else ""
        if holder.link_id:
            with info.open_link(holder.link_id) as there:
                links.detach_now(there)
            again = functools.partial(_attach, link, ifindex, kept, (holder.mode,))
            netns.undo(f"attach {holder.program} again", again)
        else:
            xdp.set_program(ifindex, holder.mode, None, old)
        try:
            _attach(desired.link, ifindex, prog, _modes(desired, holder))
        except OSError as error:
            left = log.roll_back()
            if left:
                raise Failure(f"{error.strerror}; then, {'; '.join(left)}") from error
            raise


def _modes(desired: Desired, holder: Holder | None) -> tuple[str, ...]:
    """What to try, in order: auto keeps what is there, else takes what the driver takes."""
    if desired.mode != "auto":
        return (desired.mode,)
    return (holder.mode,) if holder else ("native", "generic")


def _attach(link: str, ifindex: int, prog: Fd, modes: tuple[str, ...]) -> None:
    """Attach in the first mode that the interface takes, by a link with that name if it has one."""
    if link:
        linked.pin_new(
            link, lambda: _first(modes, lambda mode: xdp.create_link(prog, ifindex, mode))
        )
    else:
        _first(modes, lambda mode: xdp.set_program(ifindex, mode, prog, None))


def _first(modes: tuple[str, ...], attach: Callable[[str], MadeT]) -> MadeT:
    """What comes of the first mode that is not refused; of the last in any case."""
    for mode in modes[:-1]:
        try:
            return attach(mode)
        except OSError as error:
            if error.errno not in _REFUSALS:
                raise
    return attach(modes[-1])


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The attachment as the kernel has it; ids are null when it does not exist."""
    shared = xdp_components.mine(desired, observed)
    mine = _dispatcher(observed) if shared else _mine(desired, observed)
    program = shared.program if shared else mine.program if mine else None
    link_id = mine.link_id if mine else 0
    return {
        "attachment": {
            "interface": desired.interface,
            "ifindex": observed.ifindex or None,
            "netns": desired.netns or None,
            "mode": mine.mode if mine else None,
            "driver_native": observed.native,
            "prog_id": program.id if program else None,
            "prog_name": program.name if program else None,
            "prog_tag": program.tag if program else None,
            "link_id": link_id or None,
            "link": desired.link if link_id else None,
            "dispatcher": _described(observed.chain) if observed.chain else None,
            "others": [
                {
                    "prog_id": holder.program.id,
                    "prog_name": holder.program.name,
                    "mode": holder.mode,
                    "link_id": holder.link_id or None,
                    "ours": holder.program.ours,
                }
                for holder in observed.holders
                if holder is not mine
            ],
        }
    }


def _described(chain: Chain) -> dict[str, Any]:
    return {
        "prog_id": chain.prog_id,
        "version": chain.version,
        "components": [described(component) for component in chain.components],
    }


def _dispatcher(observed: Observed) -> Holder | None:
    number = observed.chain.prog_id if observed.chain else 0
    return next((each for each in observed.holders if each.program.id == number), None)


def _mine(desired: Desired, observed: Observed) -> Holder | None:
    for holder in observed.holders:
        if desired.link and holder.link_id and observed.is_pinned(holder):
            return holder
        if not desired.link and not holder.link_id and observed.declared(holder):
            return holder
    return None
