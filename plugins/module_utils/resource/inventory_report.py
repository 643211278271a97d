# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The inventory as bpf_info returns it: plain lists and dictionaries, with a verdict for each."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..bpf import features, mounts
from . import classify, inventory, look, stored
from .classify import Known, Verdict
from .errors import Failure, require_root

OBJECTS = ("programs", "maps", "links", "attachments")
CHOICES = (*OBJECTS, "features", "releases")
CONDITIONS = (classify.DRIFTED, classify.ZOMBIE, classify.ORPHAN)


def gather(what: Collection[str], owner: str, files: Sequence[str] = ()) -> Mapping[str, Any]:
    """What is asked for (of ``CHOICES``), of one ``owner`` (ours, foreign) or of ``all``.

    ``files`` are looked at along. Raises Failure without root or Linux, OSError when the kernel
    refuses.
    """
    if platform.system() != "Linux":
        raise Failure(f"this host runs {platform.system()}, and BPF programs run in Linux")
    require_root()
    result: dict[str, Any] = {"host": {**host(), "files": look.at_all(files)}}
    if "features" in what:
        result["features"] = abilities()
    if "releases" in what:
        result["releases"] = stored.stacks()
    wanted = [name for name in OBJECTS if name in what]
    if wanted:
        known = classify.learn(inventory.take())
        listed = {"programs": programs, "maps": maps, "links": links, "attachments": attached}
        for name in wanted:
            items = listed[name](known)
            result[name] = [item for item in items if owner in ("all", item["owner"])]
        result["summary"] = {name: count(result[name]) for name in wanted}
    return result


def host() -> dict[str, Any]:
    """What everything else on the host depends on."""
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "bpffs": inventory.bpffs(),
        "cgroup2": mounts.cgroup2(),
        "libbpf": asdict(features.libbpf_found()),
        "sockmap_fionread": features.sockmap_fionread(),
    }


def abilities() -> dict[str, Any]:
    """What the kernel can do."""
    groups = {
        "abilities": features.features(),
        "program_types": features.prog_types(),
        "map_types": features.map_types(),
    }
    return {
        group: {name: asdict(feature) for name, feature in found.items()}
        for group, found in groups.items()
    }


def programs(known: Known) -> list[dict[str, Any]]:
    """Every program."""
    pins = _pins(known)
    return [
        {
            **asdict(about),
            "provenance": known.host.origins[number],
            "pins": pins.get(("program", number), []),
            "attached": number in known.attached,
            **_verdict(classify.program(known, number)),
        }
        for number, about in known.host.programs.items()
    ]


def maps(known: Known) -> list[dict[str, Any]]:
    """Every map, with the programs that use it."""
    pins = _pins(known)
    users: dict[int, list[int]] = {}
    for about in known.host.programs.values():
        for map_id in about.map_ids:
            users.setdefault(map_id, []).append(about.id)
    return [
        {
            **asdict(about),
            "pins": pins.get(("map", number), []),
            "prog_ids": users.get(number, []),
            **_verdict(classify.map_(known, number)),
        }
        for number, about in known.host.maps.items()
    ]


def links(known: Known) -> list[dict[str, Any]]:
    """Every link."""
    pins = _pins(known)
    targets = {item.link_id: item.target for item in known.host.attachments if item.link_id}
    return [
        {
            **asdict(about),
            "target": targets.get(number, ""),
            "pins": pins.get(("link", number), []),
            **_verdict(classify.link(known, number)),
        }
        for number, about in known.host.links.items()
    ]


def attached(known: Known) -> list[dict[str, Any]]:
    """Everything that is attached, by a link or without one."""
    found = []
    for item in known.host.attachments:
        about = known.host.programs.get(item.prog_id)
        verdict = _verdict(classify.attachment(known, item))
        found.append({**asdict(item), "prog_name": about.name if about else "", **verdict})
    return found


def _pins(known: Known) -> dict[tuple[str, int], list[str]]:
    """Where each object is pinned, by kind and id."""
    found: dict[tuple[str, int], list[str]] = {}
    for pin in known.host.pins:
        found.setdefault((pin.kind, pin.id), []).append(pin.path)
    return found


def _verdict(verdict: Verdict) -> dict[str, str]:
    return asdict(verdict)


def count(items: list[dict[str, Any]]) -> dict[str, int]:
    """How many there are, whose they are, and how many are not as they should be."""
    counted = {"total": len(items)}
    for owner in (classify.OURS, classify.FOREIGN):
        counted[owner] = sum(item["owner"] == owner for item in items)
    for condition in CONDITIONS:
        counted[condition] = sum(item["condition"] == condition for item in items)
    return counted
