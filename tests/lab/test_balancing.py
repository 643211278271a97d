# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancers of the lab: declared, asked, hit by every event under load, and taken away again.

The witnesses are the clients, and on the hosts ip and bpftool.
"""

from __future__ import annotations

import json

import balancing
import plays
import pytest
from layout import BACKENDS, BALANCERS, SERVICE, Host
from witness import on

GROUP = "balanced"
EVERY_BACKEND = {host.name for host in BACKENDS}


def xdp_program(host: Host) -> int | None:
    """The id of the program on eth1, as ip says."""
    shown = json.loads(on(host, "ip", "-d", "-j", "link", "show", "dev", "eth1"))[0]
    return shown.get("xdp", {}).get("prog", {}).get("id")


def traces(host: Host) -> str:
    """What the roles leave on a host: pins, files, addresses."""
    places = "/sys/fs/bpf/ebpf_fleet /etc /usr/local /var/lib"
    find = f"find {places} -path '*ebpf?fleet*' ! -type d"
    return on(host, f"{find} 2>/dev/null; ip -o address show dev lo | grep -v host; true")


@pytest.mark.usefixtures("_lab")
def test_the_balancers_at_work() -> None:
    before = {host: traces(host) for host in (*BALANCERS, *BACKENDS)}
    plays.play("site", GROUP)
    plays.must_change_nothing(plays.play("site", GROUP))
    plays.play("verify", GROUP)
    for url in balancing.VIPS.values():
        assert set(balancing.served(url, 40)) == EVERY_BACKEND
    for host in BALANCERS:
        assert xdp_program(host)

    killed, drained, added, upgraded, withdrawn = (after(event) for event in balancing.EVENTS)
    assert killed.failed == 0, killed.trouble
    for seen in (drained, added, upgraded, withdrawn):
        assert (seen.failed, seen.broken, seen.refused) == (0, 0, 0), seen.trouble
    assert set(added.by) == EVERY_BACKEND

    a_drained_backend_answers_nobody()
    what_rollback_takes_away_stays_away()
    assert {host: traces(host) for host in (*BALANCERS, *BACKENDS)} == before


def after(event: balancing.Event) -> balancing.Load:
    """What clients saw of the event."""
    with balancing.load() as seen:
        event.happen()
    assert seen.requests > 100
    return seen


def a_drained_backend_answers_nobody() -> None:
    """At the address that was drained. And site.yml previews its return, changing nothing by that."""
    backend = BACKENDS[0]
    balancing.drain(backend)
    for name in ("nat", "dsr", "ipip"):
        assert backend.name not in balancing.served(balancing.VIPS[name], 40)
    address = SERVICE.addresses(backend.number)[0]
    preview = plays.output("site", GROUP, "--check", "--diff")
    assert f"{address}" in preview
    assert backend.name not in balancing.served(balancing.VIPS["nat"], 40)


def what_rollback_takes_away_stays_away() -> None:
    """The interfaces are given back, and a second run changes nothing."""
    assert any(recap.changed for recap in plays.play("rollback", GROUP, "-e", "to=none"))
    plays.must_change_nothing(plays.play("rollback", GROUP, "-e", "to=none"))
    for host in (*BALANCERS, *BACKENDS):
        assert xdp_program(host) is None
