# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ports that a host takes for its own connections, in a namespace of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import netns
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import ports

SYSCTLS = Path("/proc/sys/net/ipv4")


@pytest.mark.parametrize(
    ("taken", "reserved", "left"),
    [
        ("2000\t2009\n", "\n", set(range(2000, 2010))),
        ("2000 2009", "80,2001-2003,2008\n", {2000, 2004, 2005, 2006, 2007, 2009}),
        ("2000 2009", "1000-3000", set()),
    ],
)
def test_reserved_ports_are_left_out(taken: str, reserved: str, left: set[int]) -> None:
    assert ports.parse(taken, reserved) == left


def test_a_namespace_has_its_own() -> None:
    with netns.scratch():
        (SYSCTLS / "ip_local_port_range").write_text("2000 2009", encoding="ascii")
        (SYSCTLS / "ip_local_reserved_ports").write_text("2001-2003", encoding="ascii")
        assert ports.own() == {2000, *range(2004, 2010)}
