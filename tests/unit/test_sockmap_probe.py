# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the probe makes of its options."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.modules import sockmap_probe


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.0/8", "127.0.0.1"),
        ("0.0.0.0/0", "127.0.0.1"),
        ("::/0", "::1"),
        ("::1/128", "::1"),
        ("10.1.2.0/24", "10.1.2.1"),
        ("10.1.2.9/24", "10.1.2.1"),
        ("10.1.2.9/32", "10.1.2.9"),
        ("fd00:88::/64", "fd00:88::1"),
    ],
)
def test_a_network_is_tried_at_one_of_its_hosts(text: str, address: str) -> None:
    assert sockmap_probe.address_of(text) == address


@pytest.mark.parametrize("text", ["", "web", "127.0.0.1:80", "10.0.0.0/33"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="is no IP address and no network"):
        sockmap_probe.address_of(text)


@pytest.mark.parametrize("text", ["0.0.0.0", "::", "224.0.0.1", "ff02::/16", "fe80::/10"])
def test_what_cannot_be_connected_to_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="cannot be both ends of a connection"):
        sockmap_probe.address_of(text)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"port": 0}, "port: 0 is not from 1"),
        ({"port": 65536}, "port: 65536 is not"),
        ({"messages": 0}, "messages: 0 is not from 1 to 65536"),
        ({"size": 65537}, "size: 65537 is not from 1 to 65536"),
        ({"counters": "../counters"}, "is no pin path"),
    ],
)
def test_what_is_out_of_range_is_refused(changed: dict[str, Any], words: str) -> None:
    params = {
        "cgroup": "web",
        "address": "127.0.0.1",
        "port": 9001,
        "messages": 1,
        "size": 1,
        "counters": "",
    }
    with pytest.raises(Failure, match=words):
        sockmap_probe.request_of({**params, **changed})
