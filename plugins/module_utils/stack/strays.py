# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Programs of a stack that hang at a hook without a link, where no resource declares them.

No pin tells of such an attachment. It is known by its program, which carries the stack's mark.
Hooks are only looked through when a program with the mark is found that no resource declares.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..bpf import info, pins, provenance
from ..bpf.info import MapInfo, ProgramInfo
from ..resource import paths
from ..resource.engine import Change
from ..resource.errors import Failure
from .plan import Seen, Step, named

if TYPE_CHECKING:
    from ..resource.attachments import Attachment

_AT_INTERFACES = ("xdp", "tc")
_TYPES_AT_INTERFACES = ("xdp", "sched_cls")
_SOCKMAP = "sockmap"  # one name for every map: a hook tells the map's id, a resource its pin


def find(name: str, seen: Sequence[Seen], planned: Sequence[Step]) -> tuple[Step, ...]:
    """The step that detaches them, if there are any that what is ``planned`` does not detach."""
    with named("what is attached without being declared"):
        marked = tuple(_marked(name, _declared(seen)))
        here = _pinned(paths.pin_path(name)) if marked else frozenset()
        suspects = tuple(about for about in marked if _is_of_this_host(about, here))
        if not suspects:
            return ()
        known = set(_detached(planned))
        changes = tuple(each for each in _changes(suspects, seen) if _key(each) not in known)
    if not changes:
        return ()
    return (Step("what is not declared", "prune", changes, lambda: _detach_all(changes), True),)


def _detached(planned: Iterable[Step]) -> Iterator[tuple[str, int]]:
    """Where which program is detached already."""
    for step in planned:
        for change in step.changes:
            where = _SOCKMAP if step.kind == "sockmap_attach" else change.target
            yield where, (change.before or {}).get("prog_id", 0)


def _key(change: Change) -> tuple[str, int]:
    where = _SOCKMAP if change.detail.hook == "sockmap" else change.target
    return where, change.detail.prog_id


def _declared(seen: Iterable[Seen]) -> set[int]:
    """The ids of the programs that are where they are declared."""
    return {
        item.program.id
        for each in seen
        if each.bound.resource.kind == "bpf_prog"
        for item in each.observed.programs.values()
        if item.program
    }


def _pinned(top: str) -> frozenset[tuple[str, int]]:
    """Kind and id of what has a name in the stack's directory."""
    found = set()
    for directory, _directories, names in os.walk(top):
        for each in names:
            try:
                with pins.get(os.path.join(directory, each)) as fd:
                    kind = pins.kind(fd)
                    if kind == "program":
                        found.add((kind, info.program(fd).id))
                    elif kind == "map":
                        found.add((kind, info.map_(fd).id))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES):  # gone meanwhile, or no pin
                    raise
    return frozenset(found)


def _is_of_this_host(about: ProgramInfo, here: frozenset[tuple[str, int]]) -> bool:
    """Whether the program is this host's, and not a container's with a stack of the same name.

    Interfaces are those of this host in any case. Control groups and socket maps can be seen
    everywhere, so that the program has to have a name here, or share a map that has.
    """
    if about.type in _TYPES_AT_INTERFACES or ("program", about.id) in here:
        return True
    return any(("map", map_id) in here for map_id in about.map_ids)


def _marked(name: str, declared: set[int]) -> Iterator[ProgramInfo]:
    for prog_id in info.program_ids():
        if prog_id in declared:
            continue
        try:
            with info.open_program(prog_id) as fd:
                about = info.program(fd)
        except FileNotFoundError:
            continue
        marks = provenance.read(about)
        if marks.get("owner") == provenance.OWNER and marks.get("stack") == name:
            yield about


def _changes(suspects: Sequence[ProgramInfo], seen: Sequence[Seen]) -> Iterator[Change]:
    by_id = {about.id: about for about in suspects}
    for item in _attached(frozenset(about.type for about in suspects)):
        about = by_id.get(item.prog_id)
        if about is None or item.link_id or _is_cared_for(item, about, seen):
            continue
        before = {"program": about.name, "prog_id": about.id, "mode": item.mode}
        yield Change("detach program", _target(item), before, None, detail=item)


def _target(item: Attachment) -> str:
    """The hook as the kinds call it, so that the same step is told as the same."""
    if item.hook == "cgroup":
        return f"{item.target} {item.attach_type} mode {item.mode}"
    if item.hook == "sockmap":
        return f"{item.target} {item.attach_type}"
    from ..resource.interface import place

    where = f"{place(item.target, item.netns)} {item.attach_type}"
    mode = item.mode.replace("priority", "pref")
    return f"{where} {mode}" if item.hook == "tc" else where


def _attached(types: frozenset[str]) -> Iterator[Attachment]:
    """What is attached to hooks that programs of these types fit; every hook has to be asked."""
    from ..resource import attachments, attachments_net

    links = tuple(info.links())
    if any(name.startswith("cgroup_") or name == "sock_ops" for name in types):
        cgroups = attachments.cgroup_paths()
        held = tuple(attachments.of_links(links, cgroups, {}))
        yield from attachments.of_cgroups(cgroups, held)
    if not types.isdisjoint(("sk_msg", "sk_skb")):
        maps = dict(_sockmaps())
        yield from attachments.of_sockmaps(maps, tuple(attachments.of_links(links, {}, maps)))
    if not types.isdisjoint(_TYPES_AT_INTERFACES):
        yield from attachments_net.of_interfaces(links)


def _sockmaps() -> Iterator[tuple[int, MapInfo]]:
    for map_id in info.map_ids():
        try:
            with info.open_map(map_id) as fd:
                about = info.map_(fd)
        except FileNotFoundError:
            continue
        if about.type in ("sockmap", "sockhash"):
            yield map_id, about


def _is_cared_for(item: Attachment, about: ProgramInfo, seen: Iterable[Seen]) -> bool:
    """Whether a declared attachment has this hook, whose own plan decides what runs there."""
    return any(_is_at(item, about, each) for each in seen)


def _is_at(item: Attachment, about: ProgramInfo, seen: Seen) -> bool:
    kind, observed = seen.bound.resource.kind, seen.observed
    desired = seen.bound.desired
    if kind == "cgroup_attach" and item.hook == "cgroup":
        here = (observed.path, observed.attach_type) == (item.target, item.attach_type)
        program = observed.program
        return here and program is not None and program.name == about.name
    if kind == "sockmap_attach" and item.hook == "sockmap":
        here = item.target.split(" ")[:2] == ["map", str(observed.map_id)]
        return here and bool(desired.attach_type == item.attach_type)
    if kind in ("xdp_attach", "tc_attach") and item.hook in _AT_INTERFACES:
        same = (desired.netns, desired.interface) == (item.netns, item.target)
        is_xdp = kind == "xdp_attach"
        if not same or is_xdp != (item.hook == "xdp"):
            return False
        where = "" if is_xdp else f"priority {desired.priority} handle {desired.handle:#x}"
        return is_xdp or (desired.direction, where) == (item.attach_type, item.mode)
    return False


def _detach_all(changes: Iterable[Change]) -> None:
    for change in changes:
        _detach(change.detail)


def _detach(item: Attachment) -> None:
    from ..bpf import cgroup, hooks
    from ..resource import interface

    with info.open_program(item.prog_id) as program:
        if item.hook == "cgroup":
            with cgroup.open_(item.target) as target:
                hooks.detach(target.number, program, item.attach_type)
        elif item.hook == "sockmap":
            with info.open_map(int(item.target.split(" ")[1])) as target:
                hooks.detach(target.number, program, item.attach_type)
        elif item.hook in _AT_INTERFACES:
            with interface.in_netns(item.netns):
                _detach_from_interface(item, program)


def _detach_from_interface(item: Attachment, program: Any) -> None:
    from ..bpf import tc, xdp
    from ..resource import interface

    found = interface.find(item.target, item.netns)
    if item.hook == "xdp":
        xdp.set_program(found.ifindex, item.mode, None, program)
        return
    for each in tc.filters(found.ifindex, item.attach_type):
        where = f"priority {each.priority} handle {each.handle:#x}"
        if (each.prog_id, where) == (item.prog_id, item.mode):
            tc.delete_filter(found.ifindex, item.attach_type, each.priority, each.handle)
            return
    raise Failure(f"something else changed {item.target} meanwhile; run it again")
