# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was gathered of a fleet, host by host, as the report tells it.

Everything in here comes from hosts, and none of it is trusted: it is text to be escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IN_SYNC, DRIFTED, SILENT = "in sync", "drifted", "unreachable"
# What a drift row may say without anything being wrong.
_HARMLESS = (IN_SYNC, "foreign")
# Keys of provenance that have columns of their own, or are only for machines; others are labels.
_KNOWN = frozenset(("owner", "sha256", "config", "stack", "release", "program", "maps"))
# How bpf_info names targets that the host itself has not.
_ELSEWHERE = re.compile(r"ifindex \d|cgroup id \d|netns \d|map \d")


@dataclass(frozen=True)
class Finding:
    """Something that is not as declared, or that others attached."""

    what: str
    state: str
    why: str

    @property
    def is_bad(self) -> bool:
        return self.state not in _HARMLESS


@dataclass(frozen=True)
class Stack:
    """A stack of a host. ``release`` is declared, ``running`` runs; both are empty for none."""

    name: str
    release: str
    running: str
    condition: str
    boot: str
    stored: tuple[str, ...]
    activated: str
    by: str


@dataclass(frozen=True)
class Attachment:
    """A program at a hook."""

    hook: str
    target: str
    attach_type: str
    mode: str
    program: str
    prog_id: int
    held: str
    owner: str
    stack: str
    release: str
    sha256: str
    condition: str
    reason: str


@dataclass(frozen=True)
class Program:
    """A loaded program of ours."""

    id: int
    name: str
    type: str
    stack: str
    release: str
    sha256: str
    labels: tuple[tuple[str, str], ...]
    instructions: int
    maps: tuple[str, ...]
    pins: tuple[str, ...]
    condition: str
    reason: str


@dataclass(frozen=True)
class Host:
    """A host. ``problem`` says why it could not be asked, and then nothing else is known."""

    name: str
    number: int
    problem: str = ""
    groups: tuple[str, ...] = ()
    kernel: str = ""
    machine: str = ""
    libbpf: str = ""
    stacks: tuple[Stack, ...] = ()
    attachments: tuple[Attachment, ...] = ()
    programs: tuple[Program, ...] = ()
    findings: tuple[Finding, ...] = ()
    accelerator: Mapping[str, Any] | None = None
    balancer: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = field(default=(), repr=False)

    @property
    def bad(self) -> tuple[Finding, ...]:
        return tuple(each for each in self.findings if each.is_bad)

    @property
    def state(self) -> str:
        if self.problem:
            return SILENT
        return DRIFTED if self.bad else IN_SYNC

    @property
    def anchor(self) -> str:
        return f"host-{self.number}"

    def stack(self, name: str) -> Stack | None:
        return next((each for each in self.stacks if each.name == name), None)


def plain(value: Any) -> Any:
    """The value as ordinary lists, dictionaries and strings, whatever Ansible made of them."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    return value


def host(name: str, number: int, seen: Mapping[str, Any]) -> Host:
    """One host, of what report.yml knows of it (the options of the filter report_page)."""
    info = seen.get("info") or {}
    groups = tuple(sorted(str(each) for each in seen.get("groups") or ()))
    if "releases" not in info:
        why = str(info.get("msg") or "no answer").strip()
        return Host(name, number, problem=why, groups=groups)
    links = {each["id"]: each for each in info.get("links", ())}
    origins = {each["id"]: each.get("provenance") or {} for each in info["programs"]}
    names = {each["id"]: str(each["name"]) for each in info.get("maps", ())}
    private = not seen.get("shared_kernel")
    findings = [Finding(*map(str, row)) for row in seen.get("drift") or ()]
    about = info["host"]
    parts = {part: seen.get(part) or {} for part in ("accelerator", "balancer")}
    return Host(
        name,
        number,
        groups=groups,
        kernel=str(about["kernel"]),
        machine=str(about["machine"]),
        libbpf=str(about["libbpf"]["version"] or "missing"),
        stacks=tuple(_stack(each) for each in info["releases"]),
        attachments=tuple(_attachments(info, links, origins, private)),
        programs=tuple(_programs(info, names, private)),
        # What others attached is not to be told apart from what they attached on other hosts.
        findings=tuple(each for each in findings if private or each.is_bad),
        accelerator=parts["accelerator"] if "counters" in parts["accelerator"] else None,
        balancer=parts["balancer"] if "services" in parts["balancer"] else None,
        notes=tuple(_notes(parts)),
        addresses=tuple(str(each) for each in seen.get("addresses") or ()),
    )


def _notes(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a data plane did not answer, when it was asked."""
    for part, answer in parts.items():
        if answer.get("failed") or answer.get("unreachable"):
            yield f"{part}: {answer.get('msg') or 'no answer'}"


def _stack(found: Mapping[str, Any]) -> Stack:
    active: Mapping[str, Any] = next((each for each in found["releases"] if each["active"]), {})
    times = active.get("activated") or [""]
    by = active.get("by") or {}
    return Stack(
        name=str(found["name"]),
        release=str(found.get("active") or ""),
        running=str(found.get("running") or ""),
        condition=IN_SYNC if found["condition"] == "in_sync" else str(found["condition"]),
        boot=str(found.get("boot") or ""),
        stored=tuple(str(each["name"]) for each in found["releases"]),
        activated=str(times[-1]),
        by=" on ".join(str(by[key]) for key in ("user", "controller") if by.get(key)),
    )


def _attachments(
    info: Mapping[str, Any],
    links: Mapping[int, Mapping[str, Any]],
    origins: Mapping[int, Mapping[str, str]],
    private: bool,
) -> Iterator[Attachment]:
    """Those of this host. One that shares its kernel sees those of others, too, without pins."""
    for each in info.get("attachments", ()):
        pins = links.get(each["link_id"], {}).get("pins") or ()
        target = str(each["target"])
        here = pins or (target and not _ELSEWHERE.match(target))
        if not private and not here:
            continue
        origin = origins.get(each["prog_id"], {})
        netns = f"{each['netns']}:" if each.get("netns") else ""
        yield Attachment(
            hook=str(each["hook"]),
            target=f"{netns}{target}" if target else "gone",
            attach_type=str(each["attach_type"] or ""),
            mode=str(each["mode"] or ""),
            # The kernel cuts names to 15 characters.
            program=str(origin.get("program") or each["prog_name"]),
            prog_id=int(each["prog_id"]),
            held=f"link {each['link_id']}" if each["link_id"] else "directly",
            owner=str(each["owner"]),
            stack=str(origin.get("stack", "")),
            release=str(origin.get("release", "")),
            sha256=str(origin.get("sha256", "")),
            condition=str(each["condition"]),
            reason=str(each["reason"] or ""),
        )


def _programs(info: Mapping[str, Any], maps: Mapping[int, str], private: bool) -> Iterator[Program]:
    for each in info["programs"]:
        if each["owner"] != "ours" or not (private or each["pins"]):
            continue
        origin = each.get("provenance") or {}
        labels = sorted((str(key), str(origin[key])) for key in origin if key not in _KNOWN)
        yield Program(
            id=int(each["id"]),
            name=str(origin.get("program") or each["name"]),
            type=str(each["type"]),
            stack=str(origin.get("stack", "")),
            release=str(origin.get("release", "")),
            sha256=str(origin.get("sha256", "")),
            labels=tuple(labels),
            instructions=int(each["verified_instructions"]),
            maps=tuple(sorted(maps.get(number) or str(number) for number in each["map_ids"])),
            pins=tuple(str(pin) for pin in each["pins"]),
            condition=str(each["condition"]),
            reason=str(each["reason"] or ""),
        )
