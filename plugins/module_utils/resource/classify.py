# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Whose each object is and whether it is as it should be, as far as the host alone can tell.

Pure functions of a snapshot. What a playbook declares is not known here, so drift is only what
contradicts our own pins and provenance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..bpf import provenance
from . import paths
from .attachments import Attachment, is_zombie
from .inventory import Snapshot

OURS, FOREIGN = "ours", "foreign"
OK, DRIFTED, ZOMBIE, ORPHAN = "ok", "drifted", "zombie", "orphan"


@dataclass(frozen=True)
class Verdict:
    """``owner`` is ours or foreign, ``condition`` ok, drifted, zombie or orphan, and why."""

    owner: str
    condition: str = OK
    reason: str = ""


@dataclass(frozen=True)
class Known:
    """A snapshot with the questions that every verdict asks of it answered once."""

    host: Snapshot
    ours: frozenset[int]  # programs with our provenance
    map_ids: frozenset[int]  # maps that these use
    home: Mapping[tuple[str, int], str]  # pins in directories of ours, by kind and id
    pinned: frozenset[tuple[str, int]]  # all that is pinned anywhere
    attached: frozenset[int]  # programs at a hook
    current: Mapping[tuple[str, str, str], int]  # programs of ours that are pinned, by identity


def learn(host: Snapshot) -> Known:
    """Answer the questions."""
    ours = frozenset(
        number for number, origin in host.origins.items() if origin.get("owner") == provenance.OWNER
    )
    pinned = frozenset((pin.kind, pin.id) for pin in host.pins)
    return Known(
        host,
        ours,
        frozenset(map_id for number in ours for map_id in host.programs[number].map_ids),
        {(pin.kind, pin.id): pin.path for pin in host.pins if paths.is_home(pin.path)},
        pinned,
        frozenset(item.prog_id for item in host.attachments),
        {
            _identity(host, number): number
            for number in sorted(ours)
            if ("program", number) in pinned
        },
    )


def _identity(host: Snapshot, prog_id: int) -> tuple[str, str, str]:
    """What a program of ours has in common with its other versions."""
    about = host.programs[prog_id]
    return about.name, about.type, host.origins[prog_id].get("stack", "")


def program(known: Known, prog_id: int) -> Verdict:
    """A program: drifted when someone else's is at our pin, orphan when nothing holds ours."""
    home = known.home.get(("program", prog_id))
    if prog_id not in known.ours:
        if home is not None:
            return Verdict(FOREIGN, DRIFTED, f"pinned at {home}, but not loaded by ebpf.fleet")
        return Verdict(FOREIGN)
    if ("program", prog_id) not in known.pinned and prog_id not in known.attached:
        return Verdict(
            OURS, ORPHAN, "no pin and no attachment seen from here; sockets or a process hold it"
        )
    return Verdict(OURS)


def map_(known: Known, map_id: int) -> Verdict:
    """A map is ours when a program of ours uses it or when it is pinned in a directory of ours."""
    ours = map_id in known.map_ids or ("map", map_id) in known.home
    return Verdict(OURS if ours else FOREIGN)


def link(known: Known, link_id: int) -> Verdict:
    """A link: zombie without a target, drifted with another program than our pins say."""
    about = known.host.links[link_id]
    at_home = ("link", link_id) in known.home
    owner = OURS if at_home or about.prog_id in known.ours else FOREIGN
    if is_zombie(about):
        return Verdict(owner, ZOMBIE, "what it was attached to is gone")
    if owner == FOREIGN:
        return Verdict(owner)
    drift = _drift(known, about.prog_id)
    if drift:
        return Verdict(owner, DRIFTED, drift)
    if ("link", link_id) not in known.pinned:
        return Verdict(owner, ORPHAN, "no pin seen from here; a process or another bpffs holds it")
    return Verdict(owner)


def attachment(known: Known, item: Attachment) -> Verdict:
    """An attachment is what its link is; without one, what its program is."""
    if item.link_id:
        return link(known, item.link_id)
    if item.prog_id not in known.ours:
        return Verdict(FOREIGN)
    drift = _drift(known, item.prog_id)
    return Verdict(OURS, DRIFTED, drift) if drift else Verdict(OURS)


def _drift(known: Known, prog_id: int) -> str:
    """Why the program at a hook of ours is not the one that should run there, "" when it is.

    A program that is pinned may have been declared, whoever loaded it.
    """
    if ("program", prog_id) in known.pinned:
        return ""
    if prog_id not in known.ours:
        return f"runs program {prog_id}, which is neither ours nor pinned"
    current = known.current.get(_identity(known.host, prog_id))
    return f"runs program {prog_id}, but program {current} is pinned" if current else ""
