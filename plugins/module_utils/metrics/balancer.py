# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics of the load balancers: services, backends, their health, and what each was sent.

Counters are looked up for those ids that mean something; the maps have room for thousands. The
connections that live are counted by their table's entries, which is the costly part, and of them a
collector of its own.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from ..bpf import maps
from ..xdp_lb import connections, health_maps, layout, tables, views
from ..xdp_lb.layout import Backend, ServiceKey
from ..xdp_lb.tables import Map, Tables
from . import planes
from .family import Family, counter, gauge

_COUNTED = (*tables.COUNTERS, "reasons")


def families() -> list[Family]:
    """What every balancer of this host does, but for its connections. Raises OSError, Failure."""
    found: list[Family] = []
    for name, base in planes.having(planes.BALANCER):
        with _opened(base, (*tables.TABLES, *_COUNTED)) as opened:
            if opened:
                now = tables.read(opened, rings=False)
                found += _limits(name, now)
                found += _services(name, now, opened["service_counters"])
                found += _backends(name, now, opened["backend_counters"])
                found.append(_reasons(name, opened["reasons"]))
    return merged(found)


def open_connections() -> list[Family]:
    """The connections that the tables know, by backend. Raises OSError, Failure."""
    family = gauge(
        "balancer_backend_open_connections",
        "Connections that the balancer's tables know; of dsr and ipip only those in moved slots.",
    )
    for name, base in planes.having(planes.BALANCER):
        with _opened(base, (*tables.TABLES, *connections.TABLES)) as opened:
            if not opened:
                continue
            now = tables.read(opened, rings=False)
            udp = {number for number, kind in health_maps.kinds_of(now).items() if kind.udp}
            flows = {table: opened[table].fd for table in connections.TABLES}
            moment = layout.coarse(time.monotonic_ns())
            live = connections.count(flows, now.settings, moment, udp).by_backend
            for number, backend in sorted(now.backends.items()):
                labels = _labels(name, now, backend)
                family.add(live.get(number, 0), **labels)
    return [family]


@contextlib.contextmanager
def _opened(base: str, names: tuple[str, ...]) -> Iterator[Mapping[str, Map]]:
    """The maps; none when the balancer went meanwhile, or is about to come."""
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(tables.opened(base, names))
        except FileNotFoundError:
            opened = {}
        yield opened


def merged(families: list[Family]) -> list[Family]:
    """One family for each name, with the samples of all balancers."""
    found: dict[str, Family] = {}
    for each in families:
        if each.name in found:
            found[each.name].samples.extend(each.samples)
        else:
            found[each.name] = each
    return list(found.values())


def _limits(name: str, now: Tables) -> list[Family]:
    """How many services and backends there are, and how many there may be; id 0 means none."""
    families = []
    for what, held in (("services", len(now.names)), ("backends", len(now.backends))):
        table = "service_names" if what == "services" else what
        families.append(gauge(f"balancer_{what}", f"How many {what} the balancer has."))
        families[-1].add(held, balancer=name)
        families.append(gauge(f"balancer_{what}_limit", f"How many {what} the balancer takes."))
        families[-1].add(now.limits[table] - 1, balancer=name)
    return families


def _services(name: str, now: Tables, counted: Map) -> list[Family]:
    about = gauge("balancer_service_info", "Where a service is; always 1.")
    dropped = counter("balancer_service_dropped_packets_total", "Packets of a service dropped.")
    hits = counter(
        "balancer_service_moved_hits_total", "Packets in moved slots that the tables decided."
    )
    misses = counter(
        "balancer_service_moved_misses_total", "Packets in moved slots that no table knew."
    )
    for key, value in sorted(now.services.items()):
        service = layout.Service.unpack(value)
        if service.id in now.names:
            place = views.place_of(ServiceKey.unpack(key))
            forwarding = layout.FORWARDING[service.forwarding]
            labels = {"balancer": name, "service": now.names[service.id]}
            about.add(1, **labels, place=place, forwarding=forwarding)
    for number, service_name in sorted(now.names.items()):
        sums = layout.sum_service_counters(_value(counted, number))
        labels = {"balancer": name, "service": service_name}
        dropped.add(sums.dropped, **labels)
        hits.add(sums.moved_hits, **labels)
        misses.add(sums.moved_misses, **labels)
    return [about, dropped, hits, misses]


def _backends(name: str, now: Tables, counted: Map) -> list[Family]:
    packets = counter("balancer_backend_packets_total", "Packets sent to a backend.")
    sent = counter("balancer_backend_bytes_total", "Bytes sent to a backend.")
    opened = counter("balancer_backend_connections_total", "Connections opened to a backend.")
    weight = gauge("balancer_backend_weight", "A backend's share of new connections; 0: none.")
    state = gauge("balancer_backend_state", "What is declared of a backend: 1 for that.")
    health = gauge("balancer_backend_health", "What checks say of a backend: 1 for that.")
    for number, backend in sorted(now.backends.items()):
        sums = layout.sum_backend_counters(_value(counted, number))
        labels = _labels(name, now, backend)
        packets.add(sums.packets, **labels)
        sent.add(sums.bytes, **labels)
        opened.add(sums.connections, **labels)
        weight.add(views.weight_of(backend), **labels)
        state.states(layout.STATES[backend.state], layout.STATES, "state", **labels)
        health.states(layout.HEALTH[backend.health], layout.HEALTH, "health", **labels)
    return [packets, sent, opened, weight, state, health]


def _labels(name: str, now: Tables, backend: Backend) -> dict[str, str]:
    return {
        "balancer": name,
        "service": now.names.get(backend.service, str(backend.service)),
        "backend": views.name_of(backend),
    }


def _reasons(name: str, counted: Map) -> Family:
    family = counter(
        "balancer_packets_total", "Packets that went to no backend as they came, by what became."
    )
    for number, reason in enumerate(layout.REASONS):
        family.add(layout.sum_reason(_value(counted, number)), balancer=name, reason=reason)
    return family


def _value(table: Map, number: int) -> bytes:
    size = maps.value_bytes(table.info)
    return maps.lookup(table.fd, layout.key(number), size) or bytes(size)
