# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host with an accelerator, a balancer and metrics, for as long as the tests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import world
from world import fabric, inside


@pytest.fixture(scope="session")
def host() -> Iterator[None]:
    """It is up, and everything is declared on it. Of its backends the first has a server."""
    try:
        fabric.down()
        fabric.up()
        for line in world.NETWORK.strip().splitlines():
            inside(*line.split())
        for name in ("web", "api"):
            inside("mkdir", "-p", f"/sys/fs/cgroup/{name}")
        serve = "exec ip netns exec servers python3 -m http.server 8081 >/dev/null 2>&1 &"
        inside("setsid", "sh", "-c", serve)
        world.play("everything.yml")
        yield
    finally:
        fabric.down()
    assert not fabric.cgroups.lab_cgroup().exists()
