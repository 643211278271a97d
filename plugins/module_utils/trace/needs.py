# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What BCC needs on a host, and how to get what is missing."""

from __future__ import annotations

import importlib
import os
import platform
from typing import Any

from ..resource.errors import Failure

KHEADERS = "/sys/kernel/kheaders.tar.xz"
_KPROBES = "/sys/bus/event_source/devices/kprobe"
_TRACEPOINTS = "/sys/bus/event_source/devices/tracepoint"


def headers() -> str:
    """Where BCC will find the running kernel's headers, as it looks itself; empty: nowhere."""
    release = platform.release()
    places = (
        os.environ.get("BCC_KERNEL_SOURCE", ""),
        f"/lib/modules/{release}/build",
        f"/lib/modules/{release}/source",
    )
    for place in places:
        if place and os.path.isdir(place):
            return place
    return KHEADERS if os.path.exists(KHEADERS) else ""


def require_headers() -> None:
    """Raises Failure that names the package when there are no headers."""
    if headers():
        return
    release = platform.release()
    raise Failure(
        f"BCC needs the headers of the running kernel in /lib/modules/{release}/build: install "
        f"linux-headers-{release} (Debian, Ubuntu) or kernel-devel-{release} (Red Hat), or let the "
        "role ebpf.fleet.host do it (host_bcc: true); for headers in another place set "
        "BCC_KERNEL_SOURCE in the task's environment"
    )


def require_kprobes() -> None:
    """Raises Failure where a kprobe cannot be had that goes away with its process (Linux 4.17)."""
    if not os.path.isdir(_KPROBES):
        raise Failure(
            f"the kernel {platform.release()} has no kprobes (CONFIG_KPROBES); use tracepoints "
            "(/sys/kernel/tracing/available_events has all), or another kernel"
        )


def require_tracepoints() -> None:
    """Raises Failure where there are no tracepoints."""
    if not os.path.isdir(_TRACEPOINTS):
        raise Failure(
            f"the kernel {platform.release()} has no tracepoints (CONFIG_TRACEPOINTS, "
            "CONFIG_EVENT_TRACING)"
        )


def bcc() -> Any:
    """The distribution's BCC. Raises Failure that names the package when it is missing."""
    try:
        found = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise Failure(f"{_INSTALL} ({error})") from error
    if not hasattr(found, "BPF"):
        raise Failure(f"the Python module bcc here is something else; {_INSTALL}")
    return found


_INSTALL = (
    "BCC is missing for the target's Python: install python3-bpfcc (Debian, Ubuntu), python3-bcc "
    "(Red Hat) or python-bcc (Arch Linux), or let the role ebpf.fleet.host do it (host_bcc: true); "
    "where it is there, ansible_python_interpreter must be the distribution's /usr/bin/python3"
)
