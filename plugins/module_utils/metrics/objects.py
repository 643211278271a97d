# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics of what the kernel has: programs, maps, links, and what is attached where."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict

from ..bpf import info, map_contents
from ..bpf.info import MapInfo, ProgramInfo
from ..resource import classify, inventory
from ..resource.attachments import Attachment
from ..resource.classify import Known, Verdict
from ..resource.inventory_report import CONDITIONS
from ..resource.paths import HOME
from .declared import Declared, Labels
from .family import Family, counter, gauge

_STATISTICS = "/proc/sys/kernel/bpf_stats_enabled"
_IN_PLACE = (classify.OK, classify.ORPHAN)  # an orphan lacks a name, and is attached all the same
_GONE = (errno.ENOENT, errno.EAGAIN)


def stamp() -> object:
    """The links, and what each is attached to: a program that is detached is told of soon."""
    try:
        return tuple(info.links())
    except OSError:
        return None


def families(known: Known, declared: Iterable[Declared], foreign: bool) -> list[Family]:
    """All but what maps hold. ``foreign``: others' programs are listed, too, not only counted."""
    return [
        *_counts(known),
        *_programs(known, foreign),
        _attachments(known, declared),
    ]


def maps_held(known: Known) -> list[Family]:
    """How full our maps are, of the types that fill up."""
    entries = gauge("map_entries", "Entries in a map.")
    limits = gauge("map_max_entries", "How many entries the map takes.")
    fill = gauge("map_fill_ratio", "Entries of the map by its limit, from 0 to 1.")
    users = _users(known.host.programs.values())
    for number, about in sorted(known.host.maps.items()):
        ours = classify.map_(known, number).owner == classify.OURS
        held = _entries(about) if ours and about.type in map_contents.FILLED else None
        if held is None:
            continue
        labels = {
            "id": str(number),
            "map": about.name,
            "type": about.type,
            "stack": _stack_of_map(known, number, users.get(number, ())),
        }
        entries.add(held, **labels)
        limits.add(about.max_entries, **labels)
        fill.add(held / max(about.max_entries, 1), **labels)
    return [entries, limits, fill]


def _entries(about: MapInfo) -> int | None:
    """How many entries a map has; None when it went meanwhile, or cannot be asked."""
    try:
        with info.open_map(about.id) as fd:
            return map_contents.count(fd, about)
    except OSError as error:
        if error.errno in (*_GONE, errno.EPERM, errno.EOPNOTSUPP):
            return None
        raise


def _users(programs: Iterable[ProgramInfo]) -> Mapping[int, list[int]]:
    found: dict[int, list[int]] = {}
    for each in programs:
        for map_id in each.map_ids:
            found.setdefault(map_id, []).append(each.id)
    return found


def _stack_of_map(known: Known, number: int, users: Iterable[int]) -> str:
    """By the directory that it is pinned in, else by the programs that use it."""
    pin = known.home.get(("map", number))
    if pin:
        return pin.partition(f"/{HOME}/")[2].partition("/")[0]
    named = (known.host.origins[user].get("stack", "") for user in users)
    return next((name for name in named if name), "")


def _counts(known: Known) -> list[Family]:
    """How many objects there are, by whose they are and by their condition."""
    host = known.host
    verdicts: Mapping[str, list[Verdict]] = {
        "programs": [classify.program(known, number) for number in host.programs],
        "maps": [classify.map_(known, number) for number in host.maps],
        "links": [classify.link(known, number) for number in host.links],
        "attachments": [classify.attachment(known, item) for item in host.attachments],
    }
    found = []
    for kind, judged in verdicts.items():
        family = gauge(kind, f"How many {kind} there are, by owner and condition.")
        for owner in (classify.OURS, classify.FOREIGN):
            for condition in (classify.OK, *CONDITIONS):
                wanted = (owner, condition)
                number = sum((each.owner, each.condition) == wanted for each in judged)
                family.add(number, owner=owner, condition=condition)
        found.append(family)
    return found


def _programs(known: Known, foreign: bool) -> list[Family]:
    about = gauge("program_info", "A loaded program; always 1.")
    loaded = gauge("program_verified_instructions", "Instructions that the verifier looked at.")
    runs = counter("program_runs_total", "How often the program ran.")
    seconds = counter("program_run_seconds_total", "How long the program ran.")
    enabled = gauge("program_statistics_enabled", "Whether kernel.bpf_stats_enabled is set.")
    counted = _statistics()
    enabled.add(counted)
    for number, program in sorted(known.host.programs.items()):
        if number not in known.ours and not foreign:
            continue
        origin = known.host.origins[number]
        owner = classify.program(known, number).owner
        labels = {
            "id": str(number),
            "program": program.name,
            "stack": origin.get("stack", ""),
            "owner": owner,
        }
        release = origin.get("release", "")
        about.add(1, **labels, type=program.type, tag=program.tag, release=release)
        loaded.add(program.verified_instructions, **labels)
        if counted:
            runs.add(program.run_count, **labels)
            seconds.add(program.run_time / 1e9, **labels)
    return [about, loaded, enabled, runs, seconds]


def _statistics() -> bool:
    """Whether the kernel counts runs, since Linux 5.1."""
    try:
        with open(_STATISTICS, encoding="ascii") as file:
            return file.read().strip() != "0"
    except FileNotFoundError:
        return False


def _attachments(known: Known, declared: Iterable[Declared]) -> Family:
    """Those that stacks declare, there or not, then those of ours that no stack declares.

    What labels do not tell apart, such as both directions of an interface, is in place together.
    """
    found: dict[Labels, bool] = {}
    told: set[Attachment] = set()
    for each in declared:
        items = each.found(known)
        told.update(items)
        found[each.labels] = found.get(each.labels, True) and _is_in_place(known, items)
    for item in known.host.attachments:
        if item not in told and classify.attachment(known, item).owner == classify.OURS:
            labels = _labels_of(known, item)
            found[labels] = found.get(labels, True) and _is_in_place(known, [item])
    family = gauge(
        "attachment_in_place", "Whether a program of ours is attached as it should be, 1 or 0."
    )
    for labels, in_place in found.items():
        family.add(in_place, **asdict(labels))
    return family


def _labels_of(known: Known, item: Attachment) -> Labels:
    program = known.host.programs.get(item.prog_id)
    return Labels(
        stack=known.host.origins.get(item.prog_id, {}).get("stack", ""),
        hook=item.hook,
        target=item.target,
        netns=item.netns,
        program=program.name if program else "",
    )


def _is_in_place(known: Known, items: Collection[Attachment]) -> bool:
    conditions = [classify.attachment(known, item).condition for item in items]
    return any(condition in _IN_PLACE for condition in conditions)


def look() -> Known:
    """The host as it is now. Raises OSError."""
    return classify.learn(inventory.take())
