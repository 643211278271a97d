# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""All metrics of a host: the collectors, in the order in which their families are told."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable

from ..bpf import features
from ..resource.classify import Known
from ..stack import engine_dir
from . import accelerator, balancer, declared, objects, stacks
from .family import Family, gauge
from .pace import Collector, Pace

# How long what a run of the engine said of the stacks holds, in seconds, if nothing has changed.
STATUS_SECONDS = 60.0
STATUS_REST = 400.0  # drift is to be seen after some minutes on a slow host, too
_MOMENT = 1.0  # seconds


def pace(foreign: bool) -> Pace:
    """The host's collectors. ``foreign``: programs of others are listed by themselves, too."""

    look = _looking()

    def of_objects() -> list[Family]:
        return objects.families(look(), declared.attachments(), foreign)

    def of_maps() -> list[Family]:
        return objects.maps_held(look())

    return Pace(
        (
            Collector("host", _host, at_least=STATUS_SECONDS),
            Collector("objects", of_objects, objects.stamp),
            Collector("maps", of_maps),
            Collector("stacks", stacks.families, stacks.stamp, STATUS_SECONDS, STATUS_REST, True),
            Collector("accelerator", accelerator.families),
            Collector("balancer", balancer.families),
            Collector("connections", balancer.open_connections),
        )
    )


def _looking() -> Callable[[], Known]:
    """A look at the host that serves for all collectors of one moment."""
    last: list[tuple[float, Known]] = []

    def look() -> Known:
        now = time.monotonic()
        if not last or now - last[0][0] > _MOMENT:
            last[:] = [(now, objects.look())]
        return last[0][1]

    return look


def _host() -> list[Family]:
    about = gauge("host_info", "What the host is made of; always 1.")
    about.add(
        1,
        kernel=platform.release(),
        machine=platform.machine(),
        libbpf=features.libbpf_found().version,
        engine=engine_dir.running()[:12],
    )
    return [about]
