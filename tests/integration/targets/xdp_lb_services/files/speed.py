# SPDX-License-Identifier: GPL-3.0-or-later
"""speed.py NETNS: what 100 services with 100 backends each cost; fails when that is too much.

Measured in CPU time, so that what else the machine does counts for little.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import engine
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import model, services

UNCHANGED_SECONDS, CHANGED_SECONDS = 2.0, 4.0
TRIES = 3  # the fastest counts


def declaration(weight: int) -> dict[str, Any]:
    """The module's parameters. The backends are behind a gateway."""
    found = [
        {
            "name": f"service{number}",
            "vip": f"192.0.2.{number + 1}",
            "port": "80",
            "protocol": "tcp",
            "forwarding": "ipip",
            "backends": [
                {"address": f"10.78.{number}.{host + 1}", "weight": weight if host < 10 else 10}
                for host in range(100)
            ],
        }
        for number in range(100)
    ]
    sources = {"ipv4": "10.77.0.1"}
    return {
        "state": "present",
        "pin_dir": "it_lbs_other",
        "netns": sys.argv[1],
        "services": found,
        "sources": sources,
    }


def run(weight: int) -> tuple[bool, float]:
    """Whether it changed anything, and the seconds of CPU time that it took."""
    start = time.process_time()
    outcome = engine.converge(services, model.desired(declaration(weight)), False)
    return outcome.changed, time.process_time() - start


def main() -> int:
    """Measure; the exit status says whether it was fast enough."""
    print("first", run(10))
    unchanged = [run(10) for dummy in range(TRIES)]
    changed = [run(weight) for weight in range(11, 11 + TRIES)]
    print("unchanged", unchanged)
    print("changed", changed)
    if any(did for did, _seconds in unchanged) or not all(did for did, _seconds in changed):
        return 1
    fastest = [min(seconds for _did, seconds in each) for each in (unchanged, changed)]
    return int(fastest[0] >= UNCHANGED_SECONDS or fastest[1] >= CHANGED_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
