# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What takes back a change to a server behind a load balancer, for a journal."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from ..resource.engine import Change
from . import backend_host, backend_need
from .backend_host import Host

_OPPOSITE = {"add": "delete", "delete": "add"}


def names_of(change: Change) -> list[str]:
    """The interfaces whose sysctls have to be known before."""
    if change.action in ("set", "restore", "remove tunnel"):
        return [change.target.partition("/")[0]]
    return []


def undo(change: Change, host: Host) -> None:
    """Undo what was done to ``host``, as it was before. Raises Failure with ip's words."""
    for name, value in _sysctls(change, host).items():
        backend_host.write_sysctl(name, value)
    for words in inverse(change, host):
        backend_host.ip(*words)
    if change.action == "remove tunnel":
        for name, value in host.sysctls.items():
            if name.startswith(f"{change.target}/"):
                backend_host.write_sysctl(name, value)


def _sysctls(change: Change, host: Host) -> Mapping[str, int]:
    """An interface that was not there has no value to go back to."""
    if change.action not in ("set", "restore") or change.target not in host.sysctls:
        return {}
    return {change.target: host.sysctls[change.target]}


def inverse(change: Change, host: Host) -> list[list[str]]:
    """The words for ip(8) that undo those of the change, in order; none for a sysctl."""
    words = list(change.detail)
    if change.action in ("set", "restore"):
        return []
    if change.action in ("add address", "give address"):
        return [["address", "delete", *words[2:5]]]
    if change.action == "remove address":
        address = ipaddress.ip_address(words[2].partition("/")[0])
        return [["address", "add", *backend_need.words_of(address)]]
    if change.action == "add tunnel":
        return [["link", "delete", change.target]]
    if change.action == "remove tunnel":
        return _tunnel(change.target, host)
    if change.action == "bring up":
        return [["link", "set", change.target, "down"]]
    if change.action in ("add rule", "remove rule"):
        return [[*words[:2], _OPPOSITE[words[2]], *words[3:]]]
    return [_route(words, change)]


def _tunnel(name: str, host: Host) -> list[list[str]]:
    there = host.interfaces[name]
    kind = ["ipip"] if "." in there.tunnel else ["ip6tnl", "mode", "any"]
    made = [["link", "add", name, "type", *kind, "local", there.tunnel]]
    if backend_need.DUMMY in there.addresses:
        made.append(["address", "add", *backend_need.words_of(backend_need.DUMMY, name)])
    return [*made, ["link", "set", name, "up"]] if there.up else made


def _route(words: list[str], change: Change) -> list[str]:
    before = (change.before or {}).get("route") or ""
    table = ["table", words[-1]]
    if before:
        return [words[0], "route", "replace", *before.split(), *table]
    return [words[0], "route", "flush", *table]
