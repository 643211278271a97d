# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a load balancer does: its services with their counters, and why packets went elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ..bpf import map_contents
from ..resource.errors import Failure
from . import connections, health_maps, layout, plan, tables, targets
from .tables import Map

_COUNTED = (*tables.COUNTERS, "reasons")
_NO_SERVICE = asdict(layout.ServiceCounters(0, 0, 0))
_NO_BACKEND = asdict(layout.BackendCounters(0, 0, 0))


def gather(pin_dir: str) -> dict[str, Any]:
    """The services of the balancer pinned in ``pin_dir``, and its reasons. Raises Failure."""
    try:
        with tables.opened(pin_dir, (*tables.TABLES, *_COUNTED, *connections.TABLES)) as found:
            return _gather(found)
    except FileNotFoundError as error:
        raise Failure(
            f"no load balancer is pinned in {pin_dir}; the role xdp_lb sets one up"
        ) from error


def _gather(found: Mapping[str, Map]) -> dict[str, Any]:
    now = tables.read(found)
    udp = {number for number, kind in health_maps.kinds_of(now).items() if kind.udp}
    flows = {name: found[name].fd for name in connections.TABLES}
    live = connections.count(flows, now.settings, layout.coarse(time.monotonic_ns()), udp)
    services = [dict(each) for each in plan.results(now, targets.rings(now), live.by_backend, {})]
    by_service, by_backend = _counters(found)
    for service in services:
        service.pop("slots_moved", None)
        service["counters"] = by_service.get(service["id"], _NO_SERVICE)
        for backend in service["backends"]:
            backend["counters"] = by_backend.get(backend["id"], _NO_BACKEND)
    return {"services": services, "reasons": _reasons(found["reasons"])}


def _counters(
    found: Mapping[str, Map],
) -> tuple[dict[int, dict[str, int]], dict[int, dict[str, int]]]:
    """By service id and by backend id, the CPUs added up."""
    services = {
        number: asdict(layout.sum_service_counters(raw))
        for number, raw in _array(found["service_counters"])
    }
    backends = {
        number: asdict(layout.sum_backend_counters(raw))
        for number, raw in _array(found["backend_counters"])
    }
    return services, backends


def _reasons(table: Map) -> dict[str, int]:
    counted = {number: layout.sum_reason(raw) for number, raw in _array(table)}
    return {name: counted.get(number, 0) for number, name in enumerate(layout.REASONS)}


def _array(table: Map) -> Iterator[tuple[int, bytes]]:
    """The entries that are not zero, with the values of all CPUs."""
    for key, raw in map_contents.items(table.fd, table.info):
        if any(raw):
            yield layout.KEY.unpack(key)[0], raw
