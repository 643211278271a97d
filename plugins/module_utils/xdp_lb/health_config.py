# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The health service's configuration: which services are checked, and how.

One JSON file, which the role writes: ``pin_dir``, and ``services`` by name. What backends a service
has is not in it: the pinned maps say that, so that the two cannot disagree.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional

from ..resource.errors import Failure
from ..resource.paths import pin_path

TYPES = ("tcp", "http", "https")


@dataclass(frozen=True)
class Check:
    """How one service's backends are checked. Times are in seconds."""

    type: str = "tcp"
    port: int = 0  # 0: the backend's own, else the service's
    path: str = "/"
    host: str = ""  # "": the backend's address
    status: tuple[tuple[int, int], ...] = ((200, 399),)  # first and last, inclusive
    verify: bool = False  # the certificate, and that it is for the host
    ca_file: str = ""  # "": the system's
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2  # checks in a row that must succeed before a backend is up
    fall: int = 3  # and fail before it is down
    jitter: float = 0.1  # share of the interval by which each check comes early or late


@dataclass(frozen=True)
class Config:
    """What the service was told: where the balancer is pinned, and each service's check."""

    pin_dir: str
    services: Mapping[str, Check]
    concurrency: int = 256  # checks under way at once


Stamp = Optional[tuple[int, int, int, int]]  # another one: the file may hold something else


def stamp(path: str) -> Stamp:
    """Which file ``path`` is and when it was written; None for one that cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read(path: str) -> Config:
    """The configuration in the file ``path``. Raises Failure that says what is wrong in it."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise Failure(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise Failure(f"{path} is no JSON: {error}") from error
    try:
        return parse(content)
    except Failure as failure:
        raise Failure(f"{path}: {failure}") from failure


def parse(content: Any) -> Config:
    """The configuration that the JSON value says. Raises Failure."""
    given = _mapping(content, "the configuration")
    _known(given, ("pin_dir", "services", "concurrency"), "the configuration")
    services = _mapping(given.get("services", {}), "services")
    return Config(
        pin_dir=pin_path(_text(given, "pin_dir", "xdp_lb", "pin_dir")),
        services={name: check(options, name) for name, options in services.items()},
        concurrency=_whole(given, "concurrency", Config.concurrency, 1, 4096, "concurrency"),
    )


def check(options: Any, service: str) -> Check:
    """The check of one service, with the defaults for what is not said. Raises Failure."""
    where = f"health_check of service {service}"
    given = _mapping(options, where)
    _known(given, tuple(Check.__dataclass_fields__), where)
    kind = _text(given, "type", Check.type, where)
    if kind not in TYPES:
        raise Failure(f"{where}: type {kind!r} is none of {', '.join(TYPES)}")
    path = _text(given, "path", Check.path, where)
    if not path.startswith("/") or any(character <= " " for character in path):
        raise Failure(f"{where}: path {path!r} begins with / and holds no blanks")
    host = _text(given, "host", Check.host, where)
    if any(character <= " " for character in host):
        raise Failure(f"{where}: host {host!r} holds no blanks")
    found = Check(
        type=kind,
        port=_whole(given, "port", Check.port, 0, 65535, where),
        path=path,
        host=host,
        status=_status(given.get("status"), where),
        verify=_truth(given, "verify", Check.verify, where),
        ca_file=_text(given, "ca_file", Check.ca_file, where),
        interval=_number(given, "interval", Check.interval, 0.1, 3600, where),
        timeout=_number(given, "timeout", Check.timeout, 0.01, 600, where),
        rise=_whole(given, "rise", Check.rise, 1, 1000, where),
        fall=_whole(given, "fall", Check.fall, 1, 1000, where),
        jitter=_number(given, "jitter", Check.jitter, 0, 0.5, where),
    )
    if found.verify and kind != "https":
        raise Failure(f"{where}: verify is for type https; {kind} has no certificate")
    if found.verify and not host:
        raise Failure(f"{where}: verify needs host, the name that the certificate is for")
    return found


def _status(given: Any, where: str) -> tuple[tuple[int, int], ...]:
    """Ranges as first and last, from numbers and ``first-last``."""
    if given is None:
        return Check.status
    ranges = []
    for item in given if isinstance(given, list) else [given]:
        first, dash, last = str(item).partition("-")
        ends = (first.strip(), (last if dash else first).strip())
        if not all(end.isascii() and end.isdigit() and len(end) == 3 for end in ends):
            raise Failure(f"{where}: status {item!r} is no status: write 200, or 200-399")
        ranges.append((int(ends[0]), int(ends[1])))
        if ranges[-1][0] > ranges[-1][1]:
            raise Failure(f"{where}: status {item!r} is no range: write the lower one first")
    if not ranges:
        raise Failure(f"{where}: status names no status: write 200-399, or leave it out")
    return tuple(ranges)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Failure(f"{where} is no mapping")
    return value


def _known(given: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in names:
            raise Failure(f"{where}: there is no option {name}; there are {', '.join(names)}")


def _text(given: Mapping[str, Any], name: str, default: str, where: str) -> str:
    value = given.get(name, default)
    if not isinstance(value, str) or "\0" in value or not value.isprintable():
        raise Failure(f"{where}: {name} {value!r} is no text")
    return value


def _truth(given: Mapping[str, Any], name: str, default: bool, where: str) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise Failure(f"{where}: {name} {value!r} is neither true nor false")
    return value


def _number(
    given: Mapping[str, Any], name: str, default: float, least: float, most: float, where: str
) -> float:
    value = given.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise Failure(f"{where}: {name} {value!r} is no number")
    if not least <= value <= most:
        raise Failure(f"{where}: {name} is from {least:g} to {most:g}, not {value:g}")
    return float(value)


def _whole(
    given: Mapping[str, Any], name: str, default: int, least: int, most: int, where: str
) -> int:
    value = _number(given, name, default, least, most, where)
    if not value.is_integer():
        raise Failure(f"{where}: {name} {value:g} is no whole number")
    return int(value)
