# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Accelerators as the report shows them: who talks to whom, what skips the stack, and why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.ebpf.fleet.plugins.module_utils.metrics.accelerator import FELL_BACK, LEFT

from .balancers import endpoint
from .model import Host
from .sankey import Flow, Node

_UNDECLARED = "not_policy"


@dataclass(frozen=True)
class Part:
    """A part of a bar, in per cent of it, with its count and a class of the style sheet."""

    name: str
    count: int
    kind: str
    x: float
    width: float


@dataclass(frozen=True)
class Accelerator:
    """What the accelerator of one host did since it was loaded, and has now."""

    host: str
    anchor: str
    live: int
    live_tcp: int
    sockets: tuple[Part, ...]
    directions: tuple[Part, ...]
    octets: tuple[Part, ...]


@dataclass(frozen=True)
class Reason:
    """Why something is not accelerated: ``what`` is sockets or directions; bars in per cent."""

    name: str
    words: str
    what: str
    count: int
    hosts: tuple[str, ...]
    width: float


def parts(*counted: tuple[str, int, str]) -> tuple[Part, ...]:
    """The parts of a bar; nothing when there is nothing to show."""
    total = sum(count for _name, count, _kind in counted)
    found, x = [], 0.0
    for name, count, kind in counted:
        width = 100 * count / total if total else 0.0
        found.append(Part(name, count, kind, round(x, 3), round(width, 3)))
        x += width
    return tuple(found) if total else ()


def accelerators(hosts: Sequence[Host]) -> list[Accelerator]:
    """One for each host that has one."""
    return [_accelerator(host) for host in hosts if host.accelerator is not None]


def _accelerator(host: Host) -> Accelerator:
    about = host.accelerator or {}
    counted = {name: int(count) for name, count in about["counters"].items()}
    talks = about["connections"]
    left = sum(counted.get(name, 0) for name in LEFT if name != _UNDECLARED)
    fell_back = sum(counted.get(name, 0) for name in FELL_BACK)
    return Accelerator(
        host=host.name,
        anchor=host.anchor,
        live=sum(int(each["count"]) for each in talks if each["accelerated"]),
        live_tcp=sum(int(each["count"]) for each in talks if not each["accelerated"]),
        sockets=parts(
            ("accelerated", counted.get("admitted", 0), "good"),
            ("not declared", counted.get(_UNDECLARED, 0), "plain"),
            ("left on TCP", left, "warn"),
        ),
        directions=parts(
            ("past the stack", counted.get("paired", 0), "good"),
            ("fell back to TCP", fell_back, "warn"),
        ),
        octets=parts(
            ("past the stack", counted.get("redirected_bytes", 0), "good"),
            ("through TCP", counted.get("tcp_bytes", 0), "warn"),
        ),
    )


def reasons(hosts: Sequence[Host], words: Mapping[str, str]) -> list[Reason]:
    """Why, over all hosts, the most frequent first. ``words`` explain the names."""
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for host in hosts:
        counters = (host.accelerator or {}).get("counters", {})
        for what, names in (("sockets", LEFT), ("directions", FELL_BACK)):
            for name in names:
                if counters.get(name):
                    counted.setdefault((what, name), {})[host.name] = int(counters[name])
    most = max((sum(each.values()) for each in counted.values()), default=0)
    found = [
        Reason(
            name,
            str(words.get(name, name)),
            what,
            sum(by_host.values()),
            tuple(by_host),
            round(100 * sum(by_host.values()) / most, 3),
        )
        for (what, name), by_host in counted.items()
    ]
    return sorted(found, key=lambda each: -each.count)


def flows(hosts: Sequence[Host]) -> list[Flow]:
    """Connections that are open now: by client, by hook or TCP, by server."""
    found = []
    for host in hosts:
        hooks = _hooks(host)
        for each in (host.accelerator or {}).get("connections", ()):
            client, server = str(each["client_cgroup"]), str(each["server_cgroup"])
            accelerated = bool(each["accelerated"])
            hook = hooks.get(server) or hooks.get(client) if accelerated else None
            through = Node(*hook) if hook else Node("TCP stack", "not accelerated", "plain")
            if accelerated and not hook:
                through = Node("accelerator", "its hook is not seen")
            source = Node(host.name, f"in {short(client)}")
            place = endpoint(str(each["server_address"]), int(each["server_port"]))
            target = Node(place, f"in {short(server)}")
            kind = "good" if accelerated else "plain"
            found.append(Flow(source, through, target, int(each["count"]), kind))
    return found


def short(cgroup: str) -> str:
    """The path below the mount; a control group without a name is somewhere else."""
    return cgroup.replace("/sys/fs/cgroup", "", 1).lstrip("/") or (
        "/" if cgroup else "another group"
    )


def _hooks(host: Host) -> dict[str, tuple[str, str]]:
    """What is attached to each control group, and to the map behind it: a name and a note."""
    second = any(each.hook == "sockmap" and each.owner == "ours" for each in host.attachments)
    programs: dict[str, list[str]] = {}
    for each in host.attachments:
        if each.hook == "cgroup" and each.owner == "ours":
            programs.setdefault(each.target, []).append(each.attach_type.replace("cgroup_", ""))
    return {
        target: (
            f"cgroup {short(target)}",
            " → ".join([*dict.fromkeys(types), *(["sk_msg"] if second else [])]),
        )
        for target, types in programs.items()
    }
