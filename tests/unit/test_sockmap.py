# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to attach a program to a socket map, from what the kernel shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import LinkInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import sockmap
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.linked import Program
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.sockmap_plan import (
    Desired,
    Holder,
    Observed,
    plan,
)

TYPE = "sk_msg_verdict"
NEW = Program(20, "redirect", "sk_msg", "aa", ours=True, stack="web")
OLD = Program(10, "redirect", "sk_msg", "bb", ours=True, stack="web")
FOREIGN = Program(5, "redirect", "sk_msg", "cc")
LINK = LinkInfo(7, "sockmap", 20, TYPE, map_id=3)

DIRECT = Desired("/bpf/map", "/bpf/redirect", TYPE, "", present=True, drain="wait", drain_timeout=5)
BY_LINK = replace(DIRECT, link="/bpf/link")
EMPTY = Observed(3, NEW)
LINKED = replace(EMPTY, link=LINK, link_program=NEW, holder=Holder(NEW, 7))


def held(holder: Program, link_id: int = 0, **more: Any) -> Observed:
    """The hook with a program."""
    return replace(EMPTY, holder=Holder(holder, link_id), **more)


def steps(desired: Desired, observed: Observed) -> list[tuple[str, int]]:
    """What the plan does, and to what."""
    return [(change.detail.do, change.detail.id) for change in plan(desired, observed)]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (DIRECT, EMPTY, [("attach", 0)]),
        (DIRECT, held(NEW), []),
        (DIRECT, held(OLD), [("attach", 0)]),
        (BY_LINK, EMPTY, [("create link", 0)]),
        (BY_LINK, LINKED, []),
        (BY_LINK, replace(LINKED, link=replace(LINK, prog_id=10)), [("update link", 10)]),
        (BY_LINK, replace(EMPTY, link=replace(LINK, map_id=0)), [("create link", 0)]),
        (BY_LINK, replace(EMPTY, link=replace(LINK, map_id=4)), [("create link", 0)]),
        (BY_LINK, held(NEW), [("create link", 0)]),
        (BY_LINK, held(OLD), [("create link", 0)]),
        (BY_LINK, held(NEW, 7), [("adopt link", 7)]),
        (BY_LINK, replace(LINKED, staged=True), [("discard", 0)]),
        (DIRECT, replace(EMPTY, program=None), [("missing", 0)]),
        (DIRECT, replace(EMPTY, map_id=0), [("missing", 0)]),
    ],
)
def test_present(desired: Desired, observed: Observed, expected: list[tuple[str, int]]) -> None:
    assert steps(desired, observed) == expected


@pytest.mark.parametrize(
    ("desired", "observed", "message"),
    [
        (DIRECT, held(FOREIGN), "replaced silently, so it is left alone"),
        (DIRECT, held(NEW, 7), "declare the pin of that link"),
        (DIRECT, replace(EMPTY, holder=Holder(OLD, pinned=True)), "is left alone"),
        (BY_LINK, held(FOREIGN), "bpftool prog detach id 5 msg_verdict pinned /bpf/map"),
        (BY_LINK, held(OLD, 7), "by link 7"),
        (DIRECT, replace(EMPTY, tells=False, suspects=(FOREIGN,)), "Linux before 5.18"),
    ],
)
def test_refused(desired: Desired, observed: Observed, message: str) -> None:
    with pytest.raises(Failure, match=message):
        plan(desired, observed)


def test_before_linux_5_18_the_record_is_what_is_attached() -> None:
    unknown = replace(EMPTY, tells=False)
    assert steps(DIRECT, unknown) == [("attach", 0)]
    assert steps(DIRECT, replace(unknown, holder=Holder(NEW))) == []
    absent = replace(DIRECT, present=False)
    assert steps(absent, replace(unknown, holder=Holder(NEW))) == [("detach", 20)]
    assert steps(absent, replace(unknown, stale_record=True)) == [("forget", 0)]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (DIRECT, EMPTY, []),
        (DIRECT, held(FOREIGN, sockets=3), []),
        (DIRECT, held(NEW), [("detach", 20)]),
        (DIRECT, held(OLD), [("detach", 10)]),
        (DIRECT, held(NEW, sockets=3), [("wait for sockets", 0), ("detach", 20)]),
        (DIRECT, held(NEW, 7), []),
        (DIRECT, held(OLD, program=None), [("detach", 10)]),
        (DIRECT, held(FOREIGN, program=None), []),
        (BY_LINK, LINKED, [("release", 0)]),
        (BY_LINK, replace(LINKED, sockets=1), [("wait for sockets", 0), ("release", 0)]),
        (BY_LINK, replace(EMPTY, link=replace(LINK, map_id=0), sockets=1), [("release", 0)]),
        (BY_LINK, held(NEW), []),
        (BY_LINK, replace(EMPTY, staged=True), [("discard", 0)]),
    ],
)
def test_absent(desired: Desired, observed: Observed, expected: list[tuple[str, int]]) -> None:
    assert steps(replace(desired, present=False), observed) == expected


@pytest.mark.parametrize(
    ("drain", "sockets", "expected", "warning"),
    [
        ("none", 0, ["detach"], ""),
        ("none", 3, ["detach"], "sockets that keep the program until they close: 3"),
        ("none", None, ["detach"], "close: unknown"),
        ("force", 0, ["detach"], ""),
        ("force", 3, ["delete sockets", "detach"], "queued for sockets in the map is lost"),
        ("force", None, ["delete sockets", "detach"], "is lost"),
    ],
)
def test_drain(drain: str, sockets: int | None, expected: list[str], warning: str) -> None:
    desired = replace(DIRECT, present=False, drain=drain)
    changes = plan(desired, held(NEW, sockets=sockets))
    assert [change.detail.do for change in changes] == expected
    assert warning in changes[0].warning


def test_sockets_that_cannot_be_seen_cannot_be_waited_for() -> None:
    with pytest.raises(Failure, match="declare the map with values of 8 bytes"):
        plan(replace(DIRECT, present=False), held(NEW, sockets=None))


@pytest.mark.parametrize(
    ("drain", "sockets", "times"),
    [("wait", 0, 0), ("wait", 2, 1), ("force", 0, 1), ("force", 2, 1), ("none", 2, 1)],
)
def test_what_may_fill_the_map_is_named(drain: str, sockets: int, times: int) -> None:
    desired = replace(DIRECT, present=False, drain=drain)
    changes = plan(desired, held(NEW, sockets=sockets, feeders=("program 4 (insert) at /cg",)))
    assert (
        " ".join(change.warning for change in changes).count("program 4 (insert) at /cg") == times
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prog": None}, "state present needs prog"),
        ({"prog": None, "state": "absent"}, "a removal without the option link needs prog"),
        ({"attach_type": "egress"}, "is no hook of a socket map"),
        ({"drain_timeout": -1}, "negative"),
        ({"map": "../map"}, "is no pin path"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        sockmap.desired({"map": "web/map", "prog": "web/redirect", **options})


def test_options() -> None:
    read = sockmap.desired({"map": "web/map", "prog": "/bpf/p", "attach_type": "skb_verdict"})
    assert read == Desired(
        "/sys/fs/bpf/ebpf_fleet/web/map",
        "/bpf/p",
        "sk_skb_verdict",
        "",
        present=True,
        drain="wait",
        drain_timeout=60,
    )
