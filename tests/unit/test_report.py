# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report makes of what it is told; tests/report has it told by real hosts."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.sock_diag import TcpSocket
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import sockmap_census
from ansible_collections.ebpf.fleet.plugins.plugin_utils.report import figures, page, sankey
from ansible_collections.ebpf.fleet.plugins.plugin_utils.report.sankey import Flow, Node

EVIL = "</title><script>alert(1)</script>'\"><b>&amp;"


def asked(**given: Any) -> page.Asked:
    return page.Asked(**{"title": EVIL, "made": "today", "words": {}, "measured": {}, **given})


def host() -> dict[str, Any]:
    """A host every text of which is an attack."""
    program = {
        "id": 7,
        "name": EVIL,
        "type": EVIL,
        "owner": "ours",
        "pins": [EVIL],
        "map_ids": [1, 2],
        "provenance": {"stack": EVIL, "release": EVIL, "sha256": EVIL, EVIL: EVIL},
        "verified_instructions": 12,
        "condition": EVIL,
        "reason": EVIL,
    }
    attachment = {
        "hook": EVIL,
        "target": EVIL,
        "attach_type": EVIL,
        "mode": EVIL,
        "netns": EVIL,
        "prog_id": 7,
        "prog_name": EVIL,
        "link_id": 3,
        "owner": "ours",
        "condition": EVIL,
        "reason": EVIL,
    }
    backend = {
        "address": "10.0.0.1",
        "port": 0,
        "state": EVIL,
        "health": EVIL,
        "slots": 5,
        "counters": {"packets": 5, "bytes": 6, "connections": 7},
    }
    service = {
        "name": EVIL,
        "vip": "192.0.2.1",
        "port": 80,
        "protocol": EVIL,
        "forwarding": EVIL,
        "backends": [backend],
        "counters": {"dropped": 1},
    }
    talk = {
        "client_address": "127.0.0.1",
        "client_cgroup": EVIL,
        "server_address": EVIL,
        "server_port": 1,
        "server_cgroup": EVIL,
        "accelerated": True,
        "count": 4,
    }
    stack = {
        "name": EVIL,
        "active": EVIL,
        "running": EVIL + "2",
        "condition": EVIL,
        "boot": EVIL,
        "releases": [{"name": EVIL, "active": True, "activated": [EVIL], "by": {"user": EVIL}}],
    }
    return {
        "info": {
            "host": {"kernel": EVIL, "machine": EVIL, "libbpf": {"version": EVIL}},
            "releases": [stack],
            "programs": [program],
            "maps": [{"id": 1, "name": EVIL}],
            "links": [],
            "attachments": [attachment],
        },
        "drift": [[EVIL, EVIL, EVIL], [EVIL, "foreign", EVIL]],
        "accelerator": {"counters": {"admitted": 1, "not_policy": 2}, "connections": [talk]},
        "balancer": {"services": [service], "reasons": {EVIL: 3, "drop_" + EVIL: 4}},
        "addresses": ["10.0.0.1", EVIL],
        "groups": [EVIL],
    }


def test_whatever_a_host_says_is_text() -> None:
    measure = {"what": EVIL, "measure": EVIL, "better": "lower", "values": {EVIL: 2, "b": 1}}
    measured = {"title": EVIL, "note": EVIL, "figures": [measure]}
    silent = {"info": {"msg": EVIL, "unreachable": True}}
    text = page.render(
        {EVIL: host(), "silent" + EVIL: silent},
        asked(measured=measured, words={"not_policy": EVIL}),
    )
    assert text.count("<script>") == 1
    assert "<b>&amp;" not in text
    assert "alert(1)</script>" not in text
    assert text.count("alert(1)") > 40
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(drawing)


def test_a_fleet_of_which_nothing_is_known_is_a_page() -> None:
    text = page.render({}, asked())
    assert "0 hosts" in text
    assert "Nothing. Every host answered" in text


def test_the_time_alone_is_no_change() -> None:
    one = page.render({"a": {}}, asked(made="now"))
    later = page.render({"a": {}}, asked(made="later"))
    other = page.render({"b": {}}, asked(made="later"))
    assert one != later
    assert page.unless_new(later, one) == one
    assert page.unless_new(other, one) == other
    assert page.unless_new(one, "") == one


def test_columns_are_cut_and_nothing_is_lost() -> None:
    hook = Node("hook")
    flows = [Flow(Node(f"s{one}"), hook, Node(f"t{one % 30}"), one, "c0") for one in range(60)]
    drawn = sankey.draw(flows, "packets", limit=10)
    assert drawn is not None
    assert drawn.total == sum(range(60))
    names = [shape.node.name for shape in drawn.shapes]
    assert "51 others" in names
    assert "21 others" in names
    sources = [shape for shape in drawn.shapes if shape.anchor == "end"]
    assert len(sources) == 10
    assert sum(shape.total for shape in sources) == drawn.total
    assert all(shape.y >= 0 and shape.y + shape.height <= drawn.height for shape in drawn.shapes)


def test_what_does_not_flow_is_drawn_as_a_line() -> None:
    drawn = sankey.draw([Flow(Node("a"), Node("b"), Node("c"), 0, "c0")], "packets")
    assert drawn is not None
    assert {band.kind for band in drawn.bands} == {"c0 idle"}
    assert sankey.draw([], "packets") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"figures": 3},
        {"figures": [{"what": "a"}]},
        {"figures": [{"what": "a", "measure": "b", "better": "up", "values": {"a": 1}}]},
        {"figures": [{"what": "a", "measure": "b", "better": "lower", "values": {"a": "x"}}]},
        {"figures": [{"what": "a", "measure": "b", "better": "lower", "values": {}}]},
    ],
)
def test_figures_that_are_none_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(figures.NoFigures, match="better"):
        figures.read(wrong)


def test_connections_are_counted_by_who_and_whom() -> None:
    def end(local: int, remote: int, cookie: int, group: int) -> TcpSocket:
        return TcpSocket(("127.0.0.1", local), ("127.0.0.1", remote), cookie, group, False)

    sockets = [
        TcpSocket(("0.0.0.0", 50000), ("0.0.0.0", 0), 1, 5, True),
        *(end(40000 + one, 50000, 10 + one, 4) for one in range(3)),
        *(end(50000, 40000 + one, 20 + one, 5) for one in range(3)),
        end(41000, 443, 40, 4),  # the other end is on another host
    ]
    found = sockmap_census.between(sockets, {10, 20, 21}, {4: "/cg/client", 5: "/cg/server"})
    assert {(talk.accelerated, count) for talk, count in found.items()} == {(True, 2), (False, 1)}
    for talk in found:
        assert (talk.client_cgroup, talk.server_cgroup) == ("/cg/client", "/cg/server")
        assert talk.server_port == 50000
