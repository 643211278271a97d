# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A load balancer's declaration, as the module gets it."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import model


def backend(address: str = "10.0.0.11", **options: Any) -> dict[str, Any]:
    return {"address": address, **options}


def service(**options: Any) -> dict[str, Any]:
    return {
        "name": "web",
        "vip": "192.0.2.10",
        "port": "80",
        "protocol": "tcp",
        "forwarding": "dsr",
        "backends": [backend()],
        **options,
    }


def declare(*services: dict[str, Any], **options: Any) -> model.Desired:
    sources = {"ipv4": "10.0.0.1", "ipv6": "fd00::1"}
    params = {"state": "present", "pin_dir": "lb", "sources": sources, **options}
    return model.desired({**params, "services": list(services)})
