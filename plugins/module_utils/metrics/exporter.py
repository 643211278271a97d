# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Metrics by HTTP, through prometheus_client: ``/metrics`` at an address that is loopback's.

prometheus_client is not a part of the engine; Debian's package is python3-prometheus-client.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import Any

from ..resource.errors import Failure, from_os_error
from .family import COUNTER, PREFIX
from .pace import Pace

LIBRARY = "prometheus_client"


def place(text: str) -> tuple[str, int]:
    """The address and the port of ADDRESS:PORT, [ADDRESS]:PORT for IPv6. Raises Failure."""
    address, colon, port = text.rpartition(":")
    if not colon or not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise Failure(f"--listen {text!r} is not ADDRESS:PORT, such as 127.0.0.1:9435")
    return address.strip("[]"), int(port)


def serve(pace: Pace, address: str, port: int) -> None:
    """Begin to serve, in threads that end with the process; the caller renews the slow collectors.

    Raises Failure.
    """
    try:
        client: Any = importlib.import_module(LIBRARY)
        core: Any = importlib.import_module(f"{LIBRARY}.core")
    except ImportError as error:
        raise Failure(
            f"the exporter needs {LIBRARY} ({error}); install python3-prometheus-client, or write "
            "a file for node_exporter (--write)"
        ) from error
    registry = client.CollectorRegistry()
    client.ProcessCollector(registry=registry)
    registry.register(_Collector(pace, core))
    try:
        client.start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        advice = "choose another address or port, or end what has it"
        raise from_os_error(error, f"listen at {address} port {port}", advice) from error


class _Collector:
    """What prometheus_client asks at each scrape, from a thread for each."""

    def __init__(self, pace: Pace, core: Any) -> None:
        self._pace, self._core = pace, core
        self._lock = threading.Lock()

    def describe(self) -> list[Any]:
        """Nothing: names are known when they are collected."""
        return []

    def collect(self) -> Iterator[Any]:
        """The families as prometheus_client has them; of a counter it adds the ``_total``."""
        with self._lock:
            self._pace.renew(slow=False)
            families = self._pace.told()
        for each in families:
            if not each.samples:
                continue
            name = PREFIX + each.name
            family = name[: -len("_total")] if each.kind == COUNTER else name
            metric = self._core.Metric(family, each.help, each.kind)
            for sample in each.samples:
                metric.add_sample(name, dict(sample.labels), sample.value)
            yield metric
