# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A program attached to a control group, by a link or directly. The rules are in cgroup_plan."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..bpf import cgroup, hooks, info, links, mounts, names, pins
from ..bpf.info import LinkInfo
from ..bpf.syscall import Fd
from . import cgroup_plan, linked, paths
from .cgroup_plan import FLAGS, Desired, Holder, Observed, Step
from .engine import Change
from .errors import Failure, from_os_error
from .linked import Program

plan = cgroup_plan.plan


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for what cannot be meant."""
    path = params["cgroup"]
    if not path or ".." in path.split("/"):
        raise Failure(f"{path!r} is no cgroup; write its path without '..'")
    mode = params.get("mode") or "link"
    present = (params.get("state") or "present") == "present"
    link, prog = params.get("link") or "", params.get("prog") or ""
    if mode == "link" and not link:
        raise Failure("mode link needs a pin that holds the link: set the option link")
    if not prog and (present or mode != "link"):
        raise Failure(f"state {'present' if present else 'absent'} with mode {mode} needs prog")
    return Desired(
        path,
        paths.pin_path(prog) if prog else "",
        _attach_type(params.get("attach_type") or ""),
        paths.pin_path(link) if link else "",
        mode,
        present,
        bool(params.get("allow_root")),
        bool(params.get("create_cgroup")),
    )


def _attach_type(name: str) -> str:
    wanted = names.ATTACH_TYPE_ALIASES.get(name, name)
    if wanted and wanted not in cgroup.ATTACH_TYPES:
        raise Failure(
            f"attach_type {name!r} is no hook of a cgroup; there are: "
            f"{', '.join(cgroup.ATTACH_TYPES)}"
        )
    return wanted


def observe(desired: Desired) -> Observed:
    """Read the cgroup, the pins and the hook. Raises Failure when one is not what it has to be."""
    path, cgroup_id = _find(desired)
    if desired.link and desired.present:
        paths.check_parent(desired.link)
    program = linked.pinned_program(desired.prog) if desired.prog else None
    link = _pinned_link(desired, program)
    attach_type = desired.attach_type or _implied_type(desired, link)
    seen = Observed(
        path,
        cgroup_id,
        attach_type,
        program,
        link,
        linked.program(link.prog_id) if link else None,
        cgroup.path_of(link.cgroup_id) if link and link.cgroup_id != cgroup_id else "",
        bool(desired.link) and os.path.lexists(pins.staging_path(desired.link)),
    )
    if not attach_type:
        return seen
    if not cgroup_id:
        to_be = desired.present and desired.create_cgroup
        return dataclasses.replace(seen, blocker=_blocker(seen)) if to_be else seen
    return _read_hook(desired, seen)


def _find(desired: Desired) -> tuple[str, int]:
    """The cgroup's absolute path and its id; id 0 when it is gone and that does not matter."""
    path = desired.cgroup
    if not path.startswith("/") and desired.present and not mounts.cgroup2():
        raise Failure(
            f"cgroup {path}: no cgroup2 file system is mounted here; boot with "
            "systemd.unified_cgroup_hierarchy=1, or mount one (mount -t cgroup2 none DIRECTORY)"
        )
    path = os.path.realpath(cgroup.locate(path))
    there = path
    if not os.path.isdir(path):
        if not desired.present:
            return path, 0
        if not desired.create_cgroup:
            raise Failure(
                f"there is no cgroup {path}; start the service or container that has it, or create "
                f"it (create_cgroup: true, or mkdir {path})"
            )
        path = _to_create(desired.cgroup)
        there = _existing(path)
    if not cgroup.is_cgroup2(there):
        raise Failure(
            f"{path} is not in a cgroup2 file system, and programs attach to no other; the cgroup2 "
            f"hierarchy is mounted at {mounts.cgroup2() or '(nowhere)'}"
        )
    is_root = there == path and next(cgroup.ancestors(path), None) is None
    if desired.present and not desired.allow_root and is_root:
        raise Failure(
            f"{path} is the root of the hierarchy: a program there runs for every process of the "
            "host; name a child cgroup, or set allow_root: true if that is meant"
        )
    return path, cgroup.id_of(path) if there == path else 0


def _to_create(declared: str) -> str:
    """Where the cgroup is made: below the cgroup2 mount, unless the path leads there by itself."""
    if declared.startswith("/") and cgroup.is_cgroup2(_existing(declared)):
        return os.path.realpath(declared)
    return os.path.join(os.path.realpath(mounts.cgroup2()), declared.lstrip("/"))


def _existing(path: str) -> str:
    """The nearest directory above that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _pinned_link(desired: Desired, program: Program | None) -> LinkInfo | None:
    return linked.pinned_link(desired.link, "cgroup", program) if desired.link else None


def _implied_type(desired: Desired, link: LinkInfo | None) -> str:
    """The one hook that the program fits; for a removal, else the one of the pinned link."""
    fd = linked.open_pin(desired.prog, "program") if desired.prog else None
    fits: tuple[str, ...] = ()
    name = "(not pinned)"
    if fd is not None:
        with fd:
            fits = cgroup.accepted_types(fd)
            about = info.program(fd)
            name = f"({about.name}, {about.type})"
    if len(fits) == 1:
        return fits[0]
    if not desired.present or fd is None:
        return _type_of_link(desired, link)
    if not fits:
        raise Failure(
            f"the program at {desired.prog} {name} cannot be attached to a cgroup; declare a "
            "program for one, such as sock_ops or cgroup_skb"
        )
    raise Failure(
        f"the program at {desired.prog} {name} fits more than one hook; set attach_type to one of: "
        f"{', '.join(fits)}"
    )


def _type_of_link(desired: Desired, link: LinkInfo | None) -> str:
    if not desired.present and desired.mode != "link":
        raise Failure(
            f"the program at {desired.prog} does not tell which hook is meant; set attach_type"
        )
    return link.attach_type if link else ""


def _read_hook(desired: Desired, seen: Observed) -> Observed:
    with cgroup.open_(seen.path) as fd:
        attached = hooks.query(fd.number, seen.attach_type)
    here = [
        link
        for link in info.links()
        if link.type == "cgroup"
        and (link.cgroup_id, link.attach_type) == (seen.cgroup_id, seen.attach_type)
    ]
    gone = linked.out_of_sight(desired.present and desired.mode == "link", desired.link)
    unpinned = desired.mode == "link" or not desired.prog
    named = set() if unpinned else linked.pinned_program_ids(desired.prog)
    holders = []
    for prog_id in attached.prog_ids:
        link_id = next((link.id for link in here if link.prog_id == prog_id), 0)
        here = [link for link in here if link.id != link_id]
        if link_id in gone:
            continue
        holders.append(Holder(linked.program(prog_id), link_id, prog_id in named))
    return dataclasses.replace(
        seen, holders=tuple(holders), flags=attached.flags, blocker=_blocker(seen)
    )


def _blocker(seen: Observed) -> str:
    start = seen.path if seen.cgroup_id else os.path.join(_existing(seen.path), "new")
    for above in cgroup.ancestors(start):
        with cgroup.open_(above) as fd:
            attached = hooks.query(fd.number, seen.attach_type)
        forbids = cgroup.forbids_below(attached)
        if forbids:
            return f"{above} holds {linked.program(attached.prog_ids[0])} with mode exclusive"
        if forbids is False:
            return ""
    return ""


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Let the kernel say whether the program fits the hook, with no cgroup involved."""
    if all(change.detail.do in ("missing", "detach", "release", "discard") for change in changes):
        return
    with linked.require_program(desired.prog) as fd:
        _require_fit(desired, fd)


def _require_fit(desired: Desired, fd: Fd) -> None:
    about = info.program(fd)
    attach_type = desired.attach_type or cgroup.accepted_types(fd)[0]
    if not cgroup.accepts(fd, attach_type):
        fits = ", ".join(cgroup.accepted_types(fd)) or "no hook of a cgroup"
        raise Failure(
            f"the program at {desired.prog} ({about.name}, {about.type}) does not fit attach_type "
            f"{attach_type}; it fits: {fits}"
        )
    if desired.mode == "link" and not cgroup.accepts_link(fd, attach_type):
        raise Failure(
            f"this kernel ({os.uname().release}) has no links for {attach_type}, which Linux 5.7 "
            "has; declare mode: multi, which replaces the program as seamlessly"
        )


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the changes out in their order: what attaches comes before what detaches."""
    rehearse(desired, changes)
    seen = observe(desired)
    for change in changes:
        try:
            if change.detail.do == "create cgroup":
                cgroup.create(change.target)
                seen = observe(desired)
                continue
            _apply(desired, seen, change.detail)
        except OSError as error:
            raise from_os_error(error, str(change), _advice(error)) from error


def _advice(error: OSError) -> str:
    return {
        errno.EPERM: "a cgroup above holds a program that was attached exclusively, or this one "
        "is attached in another mode: see bpftool cgroup tree",
        errno.ENOENT: "something else changed the hook meanwhile; run it again",
        errno.E2BIG: "the hook holds as many programs as the kernel allows (64)",
    }.get(error.errno or 0, "")


def _apply(desired: Desired, seen: Observed, step: Step) -> None:
    if step.do == "release":
        linked.release(desired.link)
    elif step.do == "discard":
        linked.discard_staged(desired.link)
    elif step.do == "adopt link":
        linked.adopt(desired.link, step.id)
    elif step.do == "detach":
        _detach(seen, step.id)
    else:
        with linked.require_program(desired.prog) as prog:
            _apply_new(desired, seen, step, prog)


def _detach(seen: Observed, prog_id: int) -> None:
    with cgroup.open_(seen.path) as target, info.open_program(prog_id) as old:
        # Without F_ALLOW_MULTI the kernel detaches whatever is there, so look just before.
        if prog_id in hooks.query(target.number, seen.attach_type).prog_ids:
            hooks.detach(target.number, old, seen.attach_type)


def _apply_new(desired: Desired, seen: Observed, step: Step, prog: Fd) -> None:
    if step.do == "update link":
        linked.swap(desired.link, prog, step.id)
        return
    with cgroup.open_(seen.path) as target:
        if step.do == "create link":
            linked.pin_new(
                desired.link, lambda: links.create(prog, target.number, seen.attach_type)
            )
        elif step.do == "replace program" and desired.mode == "multi":
            with info.open_program(step.id) as old:
                flags = FLAGS[desired.mode]
                hooks.attach(target.number, prog, seen.attach_type, flags, replaced=old)
        else:
            # Without F_ALLOW_MULTI the kernel takes no expected program: the lock has to do.
            hooks.attach(target.number, prog, seen.attach_type, FLAGS[desired.mode])


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The attachment as the kernel has it; ids are null when it does not exist."""
    mine = _mine(desired, observed)
    program = mine.program if mine else None
    return {
        "attachment": {
            "cgroup": observed.path,
            "cgroup_id": observed.cgroup_id or None,
            "attach_type": observed.attach_type or None,
            "mode": None if mine is None else "link" if mine.link_id else observed.mode,
            "prog_id": program.id if program else None,
            "prog_name": program.name if program else None,
            "prog_tag": program.tag if program else None,
            "link_id": mine.link_id or None if mine else None,
            "link": desired.link or None if mine and mine.link_id else None,
            "shared_with": [
                {
                    "prog_id": holder.program.id,
                    "prog_name": holder.program.name,
                    "link_id": holder.link_id or None,
                    "ours": holder.program.ours,
                }
                for holder in observed.holders
                if holder is not mine
            ],
        }
    }


def _mine(desired: Desired, observed: Observed) -> Holder | None:
    for holder in observed.holders:
        if holder.link_id and observed.link and holder.link_id == observed.link.id:
            return holder
        declared = observed.program is not None and holder.program.id == observed.program.id
        if declared and not holder.link_id and desired.mode != "link":
            return holder
    return None
