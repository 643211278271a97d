# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The services of one load balancer as a kind of resource: observe to report."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..resource.engine import Change
from ..resource.errors import Failure, from_os_error
from ..resource.interface import in_netns
from ..resource.paths import check_parent
from . import connections, layout, neighbours, ports, ring, tables, targets, wanted
from . import plan as planning
from .connections import Live
from .layout import Address
from .members import Moment
from .model import Desired
from .moves import Ring
from .neighbours import Neighbour
from .tables import Map, Tables
from .targets import Target
from .wanted import Placed
from .writes import merge, write

_NAMES = (*tables.TABLES, *tables.COUNTERS, *connections.TABLES)
_NEIGHBOUR_SECONDS = 1.0
_FRESH = "the load balancer is not pinned yet in {}; a real run needs it (role xdp_lb, bpf_prog)"


@dataclass(frozen=True)
class Observed:
    """The maps as they are, and what they are to hold. No tables: nothing is pinned.

    ``ways`` are the routes to backends that are new or were disabled; ``ports`` are those that the
    host takes for its own connections.
    """

    tables: Tables | None
    rings: Mapping[int, Ring] = field(default_factory=dict)
    live: Live = field(default_factory=lambda: Live({}, frozenset()))
    targets: tuple[Target, ...] = ()
    ways: Mapping[Address, Neighbour] = field(default_factory=dict)
    ports: frozenset[int] = frozenset()


def observe(desired: Desired) -> Observed:
    """Read the maps and compute the rings that the declaration asks for."""
    if not _is_pinned(desired):
        return Observed(None)
    with _opened(desired) as found:
        now = tables.read(found)
        live = _count(found, now)
    rings = targets.rings(now)
    placed = wanted.place(desired, now, _busy(desired, now, rings, live))
    observed = Observed(
        now,
        rings,
        live,
        _targets(desired, placed, rings, now),
        _ways(desired, placed, now),
        _own_ports(desired),
    )
    if desired.memory.moved is None:
        desired.memory.moved = {each.placed.declared.name: each.moved for each in observed.targets}
    return observed


def _is_pinned(desired: Desired) -> bool:
    """Whether any map of the balancer is there; then all have to be."""
    directory = tables.maps_dir(desired.pin_dir)
    if desired.state == "present":
        check_parent(directory)
    return any(os.path.lexists(os.path.join(directory, name)) for name in tables.TABLES)


@contextlib.contextmanager
def _opened(desired: Desired) -> Iterator[Mapping[str, Map]]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(tables.opened(desired.pin_dir, _NAMES))
        except FileNotFoundError as error:
            raise Failure(
                f"{error.filename} is not pinned, though other maps of the load balancer are; load "
                "it again (role xdp_lb, or bpf_prog), which gives the map its pin back"
            ) from error
        except OSError as error:
            raise from_os_error(error, f"open {error.filename}") from error
        yield found


def _count(found: Mapping[str, Map], now: Tables) -> Live:
    services = {
        layout.Service.unpack(value).id
        for key, value in now.services.items()
        if layout.ServiceKey.unpack(key).protocol == socket.IPPROTO_UDP
    }
    flows = {name: found[name].fd for name in connections.TABLES}
    moment = layout.coarse(time.monotonic_ns())
    return connections.count(flows, now.settings, moment, services)


def _busy(desired: Desired, now: Tables, rings: Mapping[int, Ring], live: Live) -> Collection[int]:
    """Backend ids that a ring or a connection names; asked for only when a new id is needed."""
    if not wanted.lacks_ids(desired, now):
        return ()
    return targets.named_by(rings.values()) | set(live.by_backend)


def _targets(
    desired: Desired, placed: Sequence[Placed], rings: Mapping[int, Ring], now: Tables
) -> tuple[Target, ...]:
    if not placed:
        return ()
    moment = Moment(layout.coarse(time.monotonic_ns()), now.settings.udp_grace)
    with ring.open_pinned(os.path.join(desired.pin_dir, ring.PROGRAM)) as computer:
        return targets.compute(placed, computer, rings, moment)


def _ways(desired: Desired, placed: Sequence[Placed], now: Tables) -> dict[Address, Neighbour]:
    """The ways to backends that have not been served so before."""
    addresses = [backend.address for each in placed for backend in planning.new_backends(each, now)]
    if not addresses:
        return {}
    with in_netns(desired.netns):
        return neighbours.resolve(addresses, _NEIGHBOUR_SECONDS)


def _own_ports(desired: Desired) -> frozenset[int]:
    if desired.state == "absent":
        return frozenset()
    with in_netns(desired.netns):
        return ports.own()


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """A change for each service that differs, and one for the settings. Raises Failure."""
    if observed.tables is None:
        return planning.fresh(desired, _FRESH.format(desired.pin_dir))
    return planning.changes(
        desired,
        planning.Facts(
            observed.tables,
            observed.rings,
            observed.live.by_backend,
            observed.targets,
            observed.ways,
            observed.ports,
        ),
    )


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Prove that the kernel makes maps for the rings; they were computed by it already."""
    rings = [found for change in changes if change.detail for found in change.detail.rings.values()]
    for made in [found for found in rings if found is not None][:1]:
        tables.new_ring(made.pack()).close()


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Write what differs, so that each packet meets either the old or the new."""
    if any(change.detail is None for change in changes):
        raise Failure(
            f"the load balancer is not pinned in {desired.pin_dir}: no maps in "
            f"{tables.maps_dir(desired.pin_dir)}; load it first (role xdp_lb, or bpf_prog with "
            f"pin_dir: {desired.pin_dir} and pin_maps: {tables.maps_dir(desired.pin_dir)})"
        )
    with _opened(desired) as found:
        write(found, merge(change.detail for change in changes), tables.read(found, rings=False))


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """Each service as it is, with what this run moved."""
    moved = desired.memory.moved or {}
    if observed.tables is None:
        return {"services": [], "slots_moved": 0}
    services = planning.results(observed.tables, observed.rings, observed.live.by_backend, moved)
    return {"services": services, "slots_moved": sum(moved.values())}
