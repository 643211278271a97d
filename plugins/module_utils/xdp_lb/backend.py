# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A server behind a load balancer: VIPs on lo, tunnel devices, ARP, rp_filter, MSS.

What the kind has changed is kept in a record, so that it can be taken back: addresses that were on
lo before, and sysctls that somebody else has changed since, are left alone.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..bpf import files, journal, netns
from ..resource.engine import Change
from ..resource.errors import Failure, from_os_error
from . import backend_host, backend_need, backend_undo
from .backend_host import PREFERENCES, TABLE, Host
from .backend_need import NOTHING, TUNNEL_PREFIXES, Need, Service
from .layout import Address

RECORD = "/var/lib/ebpf-fleet/xdp_lb_backend.json"


@dataclass(frozen=True)
class Desired:
    """What is declared. ``devices``: unpack ipip by tunnel devices; ``mss``: fit TCP to them."""

    state: str
    services: tuple[Service, ...]
    devices: bool
    mss: bool
    record: str


@dataclass(frozen=True)
class Record:
    """What was changed here: VIPs added to lo, and sysctls with their value before and since."""

    vips: frozenset[Address] = frozenset()
    sysctls: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Observed:
    """The host, and what the record says."""

    host: Host
    record: Record


def desired(params: Mapping[str, Any]) -> Desired:
    """What the module's parameters declare. Raises Failure."""
    return Desired(
        state=params["state"],
        services=backend_need.services_of(params.get("services") or []),
        devices=params["unpack"] == "device",
        mss=params["mss"],
        record=params.get("record") or RECORD,
    )


def observe(desired: Desired) -> Observed:
    """Read the host and the record. Raises Failure when no service is for this host."""
    record = _read(desired.record)
    first = backend_host.observe([])
    need = _need(desired, first)
    if desired.state == "present" and not need.services:
        there = sorted(
            str(address)
            for interface in first.interfaces.values()
            for address in interface.addresses
            if interface.name != "lo"
        )
        raise Failure(
            f"no service names an address of this host ({', '.join(there)}) among its backends; "
            "add it to services, or declare state: absent here"
        )
    names = {name.partition("/")[0] for name in (*need.sysctls, *record.sysctls)}
    return Observed(backend_host.observe(sorted(names)), record)


def _need(desired: Desired, host: Host) -> Need:
    if desired.state == "absent":
        return NOTHING
    return backend_need.need_of(desired.services, host, desired.devices, desired.mss)


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """VIPs come last and go first: while they are there, nobody may answer ARP for them."""
    host, record = observed.host, observed.record
    need = _need(desired, host)
    return [
        *_old_vips(need, host, record),
        *_tunnels(need, host),
        *_sysctls(need, host, record),
        *_routes(need, host),
        *_new_vips(need, host),
    ]


def _old_vips(need: Need, host: Host, record: Record) -> Iterator[Change]:
    for vip in sorted(record.vips - need.vips, key=str):
        if vip in host.interfaces["lo"].addresses:
            words = backend_need.words_of(vip)[:3]
            yield _ip("remove address", f"{vip} dev lo", ["address", "delete", *words], gone=True)


def _new_vips(need: Need, host: Host) -> Iterator[Change]:
    for vip in sorted(need.vips, key=str):
        if vip not in host.interfaces["lo"].addresses:
            words = backend_need.words_of(vip)
            yield _ip("add address", f"{vip} dev lo", ["address", "add", *words])


def _tunnels(need: Need, host: Host) -> Iterator[Change]:
    for name in sorted(host.interfaces):
        ours = name.startswith(TUNNEL_PREFIXES) and host.interfaces[name].tunnel
        if ours and name not in need.tunnels:
            yield _ip("remove tunnel", name, ["link", "delete", name], gone=True)
    for name, address in sorted(need.tunnels.items()):
        kind = ["ipip"] if address.version == 4 else ["ip6tnl", "mode", "any"]
        there = host.interfaces.get(name)
        if there is None:
            words = ["link", "add", name, "type", *kind, "local", str(address)]
            yield _ip("add tunnel", name, words, after={"type": kind[0], "local": str(address)})
        if there is None or backend_need.DUMMY not in there.addresses:
            words = ["address", "add", *backend_need.words_of(backend_need.DUMMY, name)]
            yield _ip("give address", f"{backend_need.DUMMY} dev {name}", words)
        if there is None or not there.up:
            yield _ip("bring up", name, ["link", "set", name, "up"], after={"up": True})


def _sysctls(need: Need, host: Host, record: Record) -> Iterator[Change]:
    for name, value in sorted(need.sysctls.items()):
        if not backend_need.satisfied(host, name):
            before = host.sysctls.get(name)
            yield Change("set", name, {"value": before}, {"value": value}, detail=(name, value))
    for name, (before, since) in sorted(record.sysctls.items()):
        if name not in need.sysctls and host.sysctls.get(name) == since != before:
            yield Change(
                "restore", name, {"value": since}, {"value": before}, detail=(name, before)
            )


def _routes(need: Need, host: Host) -> Iterator[Change]:
    for preference, source in sorted(host.rules - need.rules):
        yield _ip(
            "remove rule",
            _rule(preference, source),
            _rule_words("delete", preference, source),
            gone=True,
        )
    for version in (4, 6):
        wanted, there = need.routes[version], host.routes[version]
        place = f"table {TABLE} of IPv{version}"
        if wanted and wanted != there:
            words = [f"-{version}", "route", "replace", *wanted.split(), "table", str(TABLE)]
            yield _ip("set route", place, words, {"route": there or None}, {"route": wanted})
        elif there and not wanted:
            words = [f"-{version}", "route", "flush", "table", str(TABLE)]
            yield _ip("remove route", place, words, {"route": there}, gone=True)
    for preference, source in sorted(need.rules - host.rules):
        yield _ip("add rule", _rule(preference, source), _rule_words("add", preference, source))


def _rule(preference: int, source: str) -> str:
    return f"{preference}: from {source}"


def _rule_words(verb: str, preference: int, source: str) -> list[str]:
    """What is on a network of the host goes there; what takes the default route, takes ours."""
    words = [
        f"-{ipaddress.ip_address(source).version}",
        "rule",
        verb,
        "preference",
        str(preference),
    ]
    first = preference == PREFERENCES[0]
    table = ["main", "suppress_prefixlength", "0"] if first else [str(TABLE)]
    return [*words, "from", source, "lookup", *table]


def _ip(
    action: str,
    target: str,
    words: Sequence[str],
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    gone: bool = False,
) -> Change:
    if gone:
        return Change(action, target, before or {"present": True}, None, detail=tuple(words))
    return Change(action, target, before, after or {"present": True}, detail=tuple(words))


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Make the tunnel devices in a network namespace that ends at once."""
    made = [change for change in changes if change.action == "add tunnel"]
    if made:
        with netns.scratch():
            for change in made:
                backend_host.ip(*change.detail)


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the changes out, the record first, so that a killed run can be taken back as well."""
    record = _read(desired.record)
    vips, sysctls = set(record.vips), dict(record.sysctls)
    for change in changes:
        if change.action == "add address":
            vips.add(ipaddress.ip_address(change.target.split()[0]))
        elif change.action == "set" and not change.target.startswith(TUNNEL_PREFIXES):
            name, value = change.detail
            before = change.before["value"] if change.before else 0
            sysctls[name] = (sysctls.get(name, (before, value))[0], value)
    _write(desired.record, Record(frozenset(vips), sysctls))
    names = [name for change in changes for name in backend_undo.names_of(change)]
    before = backend_host.observe(sorted(set(names))) if journal.records() else None
    for change in changes:
        _do(change)
        if before is not None:
            back = functools.partial(backend_undo.undo, change, before)
            netns.undo(f"take back: {change}", back)
    host = observe(desired).host
    need = _need(desired, host)
    _write(
        desired.record,
        Record(
            frozenset(vips & need.vips),
            {name: values for name, values in sysctls.items() if name in need.sysctls},
        ),
    )


def _do(change: Change) -> None:
    if change.action in ("set", "restore"):
        backend_host.write_sysctl(*change.detail)
    else:
        backend_host.ip(*change.detail)


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """What the host has now, of what it needs."""
    host = observed.host
    need = _need(desired, host)
    return {
        "services": list(need.services),
        "vips": sorted(str(vip) for vip in need.vips & host.interfaces["lo"].addresses),
        "tunnels": sorted(name for name in need.tunnels if name in host.interfaces),
        "routes": {f"ipv{version}": host.routes[version] or None for version in (4, 6)},
    }


def _read(path: str) -> Record:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        return Record(
            frozenset(ipaddress.ip_address(vip) for vip in content["vips"]),
            {name: (int(pair[0]), int(pair[1])) for name, pair in content["sysctls"].items()},
        )
    except FileNotFoundError:
        return Record()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            f"{path} is no record of what was changed here ({error}); remove it if nothing is to "
            "be taken back"
        ) from error


def _write(path: str, record: Record) -> None:
    """Replace the record as a whole; none is kept of nothing."""
    try:
        if not record.vips and not record.sysctls:
            files.remove(path)
            files.remove_directory(os.path.dirname(path))
            return
        files.make_directories(os.path.dirname(path))
        content = {
            "vips": sorted(str(vip) for vip in record.vips),
            "sysctls": {name: list(values) for name, values in sorted(record.sysctls.items())},
        }
        files.write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise from_os_error(error, f"keep the record {path}") from error
