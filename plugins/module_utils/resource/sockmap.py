# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A program attached to a socket map, by a link or directly. The rules are in sockmap_plan."""

from __future__ import annotations

import dataclasses
import errno
import glob
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bpf import cgroup, hooks, info, journal, links, mounts, names, pins, provenance, sockmap
from ..bpf.info import MapInfo
from ..bpf.syscall import Fd
from . import linked, paths, sockmap_plan
from .engine import Change
from .errors import Failure, from_os_error
from .linked import Program
from .sockmap_plan import Desired, Holder, Observed, Step

plan = sockmap_plan.plan

_POLL_FIRST, _POLL_LAST = 0.05, 1.0  # seconds between two counts while draining

# Steps that bring no program to a hook.
_NOTHING_NEW = (
    "missing",
    "detach",
    "release",
    "discard",
    "forget",
    "wait for sockets",
    "delete sockets",
)


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for what cannot be meant."""
    present = (params.get("state") or "present") == "present"
    link, prog = params.get("link") or "", params.get("prog") or ""
    if not prog and (present or not link):
        what = "state present" if present else "a removal without the option link"
        raise Failure(f"{what} needs prog, the pin of the program")
    name = params.get("attach_type") or "sk_msg_verdict"
    attach_type = names.ATTACH_TYPE_ALIASES.get(name, name)
    if attach_type not in sockmap.ATTACH_TYPES:
        raise Failure(
            f"attach_type {name!r} is no hook of a socket map; there are: "
            f"{', '.join(sockmap.ATTACH_TYPES)}"
        )
    timeout = params.get("drain_timeout")
    if timeout is not None and timeout < 0:
        raise Failure(f"drain_timeout {timeout} is negative; give seconds, 0 not to wait at all")
    return Desired(
        paths.pin_path(params["map"]),
        paths.pin_path(prog) if prog else "",
        attach_type,
        _link(paths.pin_path(link), params, bool(prog)) if link else "",
        present,
        params.get("drain") or "wait",
        60 if timeout is None else timeout,
    )


def _link(pin: str, params: Mapping[str, Any], has_prog: bool) -> str:
    """The pin of the link; none where the kernel has no such links and may do without."""
    if not params.get("link_fallback") or not has_prog or os.path.lexists(pin):
        return pin
    from ..bpf import features  # takes 4 ms to read, and only the first time of a host needs it

    return pin if features.sockmap_link() else ""


def observe(desired: Desired) -> Observed:
    """Read the map, its hook and the pins. Raises Failure when one is not what it has to be."""
    if desired.link and desired.present:
        paths.check_parent(desired.link)
    program = linked.pinned_program(desired.prog) if desired.prog else None
    link = linked.pinned_link(desired.link, "sockmap", program) if desired.link else None
    seen = Observed(
        program=program,
        link=link,
        link_program=linked.program(link.prog_id) if link else None,
        staged=bool(desired.link) and os.path.lexists(pins.staging_path(desired.link)),
        stale_record=bool(_records(desired)),
    )
    fd = _open_map(desired, seen)
    if fd is None:
        return seen
    with fd:
        return _read_map(desired, seen, fd)


def _open_map(desired: Desired, seen: Observed) -> Fd | None:
    """The declared map; for a removal with its pin gone, the one that the link holds."""
    fd = linked.open_pin(desired.map, "map")
    if fd is None:
        if desired.present or seen.link is None or not seen.link.map_id:
            return None
        return info.open_map(seen.link.map_id)
    about = info.map_(fd)
    if about.type in sockmap.MAP_TYPES:
        return fd
    fd.close()
    raise Failure(
        f"the map at {desired.map} ({about.name}) is a {about.type}, and only a sockmap or "
        "sockhash has a hook for programs; declare another map"
    )


def _read_map(desired: Desired, seen: Observed, fd: Fd) -> Observed:
    about = info.map_(fd)
    prog_id = sockmap.attached(fd, desired.attach_type)
    tells = prog_id is not None
    if prog_id is None:
        prog_id = _recorded(desired, about)
    seen = dataclasses.replace(
        seen,
        map_id=about.id,
        holder=_holder(desired, about, prog_id) if prog_id else None,
        tells=tells,
        stale_record=bool(_records(desired) - {_record_path(desired, about.id)}),
        suspects=() if tells else tuple(_suspects(seen, about, prog_id)),
    )
    if desired.present:
        return seen
    return dataclasses.replace(
        seen, sockets=sockmap.sockets(fd, about), feeders=tuple(_feeders(about))
    )


def _holder(desired: Desired, about: MapInfo, prog_id: int) -> Holder | None:
    here = ("sockmap", about.id, desired.attach_type)
    link_id = next(
        (link.id for link in info.links() if (link.type, link.map_id, link.attach_type) == here), 0
    )
    if link_id in linked.out_of_sight(desired.present, desired.link):
        return None
    program = linked.program(prog_id)
    if link_id or not program.ours:
        return Holder(program, link_id)
    named = linked.pinned_program_ids(desired.map, _records(desired))
    return Holder(program, pinned=prog_id in named)


def _record_path(desired: Desired, map_id: int) -> str:
    """Where, before Linux 5.18, a pin of the attached program notes that we attached it."""
    return f"{desired.map}__{desired.attach_type}__{map_id}"


def _records(desired: Desired) -> set[str]:
    """All records for the hook: of the map, and of those that had its name before."""
    return set(glob.glob(glob.escape(_record_path(desired, 0)[:-1]) + "*"))


def _recorded(desired: Desired, about: MapInfo) -> int:
    fd = linked.open_pin(_record_path(desired, about.id), "program")
    if fd is None:
        return 0
    with fd:
        return info.program(fd).id


def _suspects(seen: Observed, about: MapInfo, recorded_id: int) -> Iterator[Program]:
    declared = seen.program.id if seen.program else 0
    for prog_type in ("sk_msg", "sk_skb"):
        for found in sockmap.programs_using(about.id, prog_type):
            if found.id not in (declared, recorded_id) and not provenance.is_ours(found):
                yield linked.program(found.id)


def _feeders(about: MapInfo) -> Iterator[str]:
    """The attached sock_ops programs that refer to the map, each with its cgroup."""
    found = {program.id: program for program in sockmap.programs_using(about.id, "sock_ops")}
    root = mounts.cgroup2()
    if not found or not root:
        return
    for directory, _directories, _files in os.walk(root):
        for prog_id in cgroup.attached(directory, "cgroup_sock_ops"):
            if prog_id in found:
                yield f"program {prog_id} ({found[prog_id].name}) at {directory}"


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Attach the program to a map of no sockets, which is dropped."""
    if all(change.detail.do in _NOTHING_NEW for change in changes):
        return
    with linked.require_program(desired.prog) as fd:
        about = info.program(fd)
        who = f"the program at {desired.prog} ({about.name}, {about.type})"
        if not sockmap.accepts(fd, desired.attach_type):
            fits = [name for name in sockmap.ATTACH_TYPES if sockmap.accepts(fd, name)]
            raise Failure(
                f"{who} does not fit attach_type {desired.attach_type}; it fits: "
                f"{', '.join(fits) or 'no hook of a socket map'}"
            )
        if desired.link and not sockmap.accepts_link(fd, desired.attach_type):
            raise Failure(
                f"this kernel ({os.uname().release}) has no links for socket maps, which Linux "
                "6.10 has; leave the option link out to attach directly"
            )


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the changes out in their order: draining comes before detaching."""
    rehearse(desired, changes)
    seen = observe(desired)
    for change in changes:
        try:
            _apply(desired, seen, change.detail)
        except OSError as error:
            busy = "another program holds the hook; see bpftool link show"
            advice = busy if error.errno == errno.EBUSY else ""
            raise from_os_error(error, str(change), advice) from error


def _apply(desired: Desired, seen: Observed, step: Step) -> None:
    if step.do == "release":
        linked.release(desired.link)
    elif step.do == "discard":
        linked.discard_staged(desired.link)
    elif step.do == "forget":
        _forget(desired)
    elif step.do == "adopt link":
        linked.adopt(desired.link, step.id)
    else:
        with _require_map(desired, seen) as target:
            _apply_to_map(desired, seen, step, target)


def _require_map(desired: Desired, seen: Observed) -> Fd:
    if not seen.map_id:
        paths.check_parent(desired.map)
        raise Failure(
            f"no map is pinned at {desired.map}; pin it first (ebpf.fleet.bpf_prog with maps or "
            "pin_maps, or ebpf.fleet.bpf_map_pin)"
        )
    return info.open_map(seen.map_id)


def _apply_to_map(desired: Desired, seen: Observed, step: Step, target: Fd) -> None:
    if step.do == "wait for sockets":
        _drain(desired, target)
    elif step.do == "delete sockets":
        sockmap.delete_all(target, info.map_(target))
    elif step.do == "detach":
        _detach(desired, seen, step.id, target)
        _forget(desired)
    else:
        with linked.require_program(desired.prog) as prog:
            _apply_new(desired, seen, step, target, prog)


def _apply_new(desired: Desired, seen: Observed, step: Step, target: Fd, prog: Fd) -> None:
    if step.do == "update link":
        linked.swap(desired.link, prog, step.id)
    elif step.do == "create link":
        linked.pin_new(desired.link, lambda: links.create(prog, target.number, desired.attach_type))
    else:
        # The kernel takes no expected program here: the lock has to do.
        hooks.attach(target.number, prog, desired.attach_type)
        if not seen.tells:
            _forget(desired)
            pins.pin(prog, _record_path(desired, seen.map_id))


def _detach(desired: Desired, seen: Observed, prog_id: int, target: Fd) -> None:
    with info.open_program(prog_id) as old:
        try:
            hooks.detach(target.number, old, desired.attach_type)
        except FileNotFoundError:
            if seen.tells:
                raise  # else somebody detached what is on record, which nobody could see


def _forget(desired: Desired) -> None:
    for record in _records(desired):
        pins.remove(record)


def _drain(desired: Desired, target: Fd) -> None:
    """Wait until the map is empty. Raises Failure, with nothing detached, when it stays used."""
    about = info.map_(target)
    end, pause = time.monotonic() + desired.drain_timeout, _POLL_FIRST
    while True:
        lingering = sockmap.sockets(target, about)
        if not lingering:
            return
        journal.check()
        left = end - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _POLL_LAST)
    feeders = ", ".join(_feeders(about))
    if feeders:
        feeders = f"detach what may still put sockets in ({feeders}); "
    raise Failure(
        f"sockets that linger in {desired.map} after {desired.drain_timeout} s: {lingering}; "
        f"nothing was detached; {feeders}"
        "raise drain_timeout to wait longer, choose drain: none to let them keep the program until "
        "they close, or drain: force to take them out, which loses what is queued for them",
        lingering=lingering,
    )


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The attachment as the kernel has it; ids are null when it does not exist."""
    holder = observed.holder
    mine = holder is not None and _is_mine(desired, observed, holder)
    program = holder.program if holder and mine else None
    result: dict[str, Any] = {
        "attachment": {
            "map": desired.map,
            "map_id": observed.map_id or None,
            "attach_type": desired.attach_type,
            "prog_id": program.id if program else None,
            "prog_name": program.name if program else None,
            "prog_tag": program.tag if program else None,
            "link_id": holder.link_id or None if holder and mine else None,
            "link": desired.link or None if holder and mine and holder.link_id else None,
            "other_prog_id": holder.program.id if holder and not mine else None,
        }
    }
    if not desired.present:
        result["lingering"] = observed.sockets
    return result


def _is_mine(desired: Desired, observed: Observed, holder: Holder) -> bool:
    if holder.link_id:
        return observed.link is not None and observed.link.id == holder.link_id
    return observed.program is not None and observed.program.id == holder.program.id
