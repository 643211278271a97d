# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a trace is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..resource.errors import Failure
from . import formats

PROBES = ("kprobe", "kretprobe", "tracepoint", "raw_tracepoint")
_MOST_EVENTS = 1_000_000
_MOST_BYTES = 256 << 20
_MOST_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Probe:
    """Where a function of the source runs: a kernel function, or ``category:name``."""

    function: str
    type: str
    target: str

    def __str__(self) -> str:
        return f"{self.type} {self.target}: {self.function}"


@dataclass(frozen=True)
class Request:
    """A program, where it runs and the bounds. Times are seconds, ``perf_pages`` are per CPU."""

    source: str
    duration: float = 10.0
    max_events: int = 10000
    max_bytes: int = 4 << 20
    probes: tuple[Probe, ...] = ()
    cflags: tuple[str, ...] = ()
    offsets: tuple[str, ...] = ()
    decode: Mapping[str, formats.Format] | None = None
    tables: tuple[str, ...] | None = None
    perf_pages: int = 64
    load_timeout: float = 600.0


def of(params: Mapping[str, Any]) -> Request:
    """The request that a module's options make. Raises Failure that names the option."""
    if not params["source"].strip():
        raise Failure("source: there is no program in it")
    _require("duration", params["duration"], 0.1, _MOST_SECONDS)
    _require("max_events", params["max_events"], 1, _MOST_EVENTS)
    _require("max_bytes", params["max_bytes"], 1024, _MOST_BYTES)
    _require("load_timeout", params["load_timeout"], 1, _MOST_SECONDS)
    pages = params["perf_pages"]
    if not 0 < pages <= 16384 or pages & (pages - 1):
        raise Failure(f"perf_pages: {pages} is no power of two from 1 to 16384")
    tables = params["tables"]
    return Request(
        source=params["source"],
        duration=params["duration"],
        max_events=params["max_events"],
        max_bytes=params["max_bytes"],
        probes=tuple(_probes(params["probes"] or [])),
        cflags=tuple(params["cflags"] or []),
        offsets=tuple(params["offsets"] or []),
        decode={
            field: formats.parse(field, str(said))
            for field, said in (params["decode"] or {}).items()
        },
        tables=None if tables is None else tuple(tables),
        perf_pages=pages,
        load_timeout=params["load_timeout"],
    )


def _require(option: str, value: float, least: float, most: float) -> None:
    if not math.isfinite(value) or not least <= value <= most:
        raise Failure(f"{option}: {value:g} is not from {least:g} to {most:g}")


def _probes(listed: Sequence[Mapping[str, Any]]) -> list[Probe]:
    found = []
    for number, item in enumerate(listed, 1):
        said = [type_ for type_ in PROBES if item.get(type_)]
        if len(said) != 1:
            raise Failure(f"probes: probe {number} needs one of {', '.join(PROBES)}")
        target = str(item[said[0]])
        if said[0] == "tracepoint" and target.count(":") != 1:
            raise Failure(f"probes: probe {number}: {target!r} is not CATEGORY:NAME")
        found.append(Probe(str(item["function"]), said[0], target))
    return found
