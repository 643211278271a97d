# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A server behind a load balancer: what iproute2 and /proc/sys say of the host, as values.

``ip -json`` is the means here, as its commands are what an operator would type and what the actions
of the module show; the package is on every host that has an address.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..resource.errors import Failure
from .layout import Address

SYSCTLS = "/proc/sys/net/ipv4/conf"
PREFERENCES = (7790, 7791)  # of the rules that packets from a VIP meet, before the main table's
TABLE = 7790

IP = "ip"


@dataclass(frozen=True)
class Interface:
    """A network device. ``mtu`` is in bytes, ``tunnel`` the local address of a tunnel device."""

    name: str
    mtu: int
    up: bool
    addresses: frozenset[Address]
    tunnel: str = ""


@dataclass(frozen=True)
class Host:
    """What the host has now. Sysctls are those of ``SYSCTLS`` by ``interface/name``."""

    interfaces: Mapping[str, Interface]
    sysctls: Mapping[str, int]
    rules: frozenset[tuple[int, str]]  # preference and source
    routes: Mapping[int, str]  # of TABLE by IP version, as ``ip route add`` takes them
    defaults: Mapping[int, str]  # of the main table, likewise; "" when there is none

    def holding(self, address: Address) -> Interface | None:
        """The interface, other than lo, that has the address."""
        for interface in self.interfaces.values():
            if interface.name != "lo" and address in interface.addresses:
                return interface
        return None


def ip(*arguments: str) -> str:
    """Run ``ip`` with these arguments and return what it prints. Raises Failure with its words."""
    try:
        done = subprocess.run(
            [IP, *arguments], capture_output=True, text=True, check=False, env=_environment()
        )
    except FileNotFoundError as error:
        raise Failure("there is no ip command; install iproute2 (the role host does)") from error
    if done.returncode != 0:
        words = done.stderr.strip() or f"status {done.returncode}"
        raise Failure(f"ip {' '.join(arguments)}: {words}{_advice(arguments, words)}")
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _advice(arguments: Sequence[str], words: str) -> str:
    if "Unknown device type" in words or ("type" in arguments and "not supported" in words):
        kind = arguments[arguments.index("type") + 1]
        module = "ip6_tunnel" if kind == "ip6tnl" else kind
        return f"; this kernel has no {kind} devices: load the module {module}, or unpack with xdp"
    return ""


def observe(names: Sequence[str]) -> Host:
    """Read the host; sysctls are read of the interfaces ``names``, and of all."""
    interfaces = {each.name: each for each in map(_interface, _json("-details", "address", "show"))}
    wanted = ["all", "default", *(name for name in names if name in interfaces)]
    return Host(
        interfaces=interfaces,
        sysctls={
            f"{name}/{key}": read_sysctl(f"{name}/{key}")
            for name in wanted
            for key in ("arp_ignore", "arp_announce", "rp_filter")
        },
        rules=frozenset(
            (rule["priority"], rule["src"])
            for version in ("-4", "-6")
            for rule in _json(version, "rule", "show")
            if rule["priority"] in PREFERENCES
        ),
        routes={4: _default("-4", str(TABLE)), 6: _default("-6", str(TABLE))},
        defaults={4: _default("-4", "main"), 6: _default("-6", "main")},
    )


def read_sysctl(name: str) -> int:
    """The value of ``interface/name``."""
    with open(f"{SYSCTLS}/{name}", encoding="ascii") as file:
        return int(file.read())


def write_sysctl(name: str, value: int) -> None:
    """Set ``interface/name``; one of an interface that is gone needs nothing."""
    try:
        with open(f"{SYSCTLS}/{name}", "w", encoding="ascii") as file:
            file.write(str(value))
    except FileNotFoundError:
        return


def _json(*arguments: str) -> list[dict[str, Any]]:
    text = ip("-json", *arguments)
    found: list[dict[str, Any]] = json.loads(text) if text.strip() else []
    return [item for item in found if item]


def _interface(shown: Mapping[str, Any]) -> Interface:
    return Interface(
        name=shown["ifname"],
        mtu=shown["mtu"],
        up="UP" in shown["flags"],
        addresses=frozenset(
            ipaddress.ip_address(item["local"])
            for item in shown.get("addr_info", ())
            if item.get("family") in ("inet", "inet6") and "local" in item
        ),
        tunnel=shown.get("linkinfo", {}).get("info_data", {}).get("local", ""),
    )


def _default(version: str, table: str) -> str:
    """The default route of a table as words; "" when there is none, or one with several hops."""
    if version == "-6" and not os.path.exists("/proc/net/if_inet6"):
        return ""
    try:
        found = _json(version, "route", "show", "table", table, "default")
    except Failure:
        return ""  # a table without routes does not exist
    for route in found:
        if "dev" in route and "nexthops" not in route:
            words = ["default"]
            via = route.get("gateway") or route.get("via", {}).get("host", "")
            if via:
                family = ["inet6"] if ":" in via and version == "-4" else []
                words += ["via", *family, via]
            words += ["dev", route["dev"]]
            words += ["onlink"] if "onlink" in route.get("flags", ()) else []
            words += _metric(route)
            return " ".join(words)
    return ""


def _metric(route: Mapping[str, Any]) -> list[str]:
    for metrics in route.get("metrics", ()):
        if "advmss" in metrics:
            return ["advmss", str(metrics["advmss"])]
    return []
