# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it takes to attach a program to a control group, from what the kernel shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import cgroup as cgroups
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.hooks import (
    F_ALLOW_MULTI,
    F_ALLOW_OVERRIDE,
    Attached,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import LinkInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import cgroup
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.cgroup_plan import (
    Desired,
    Holder,
    Observed,
    plan,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.linked import Program

TYPE = "cgroup_sock_ops"
NEW = Program(20, "watch", "sock_ops", "aa", ours=True, stack="web")
OLD = Program(10, "watch", "sock_ops", "bb", ours=True, stack="web")
FOREIGN = Program(5, "watch", "sock_ops", "cc")
LINK = LinkInfo(7, "cgroup", 20, TYPE, cgroup_id=99)

DESIRED = Desired("/cg/a", "/bpf/watch", "", "/bpf/link", "link", present=True, allow_root=False)
EMPTY = Observed("/cg/a", 99, TYPE, NEW)
LINKED = replace(EMPTY, link=LINK, link_program=NEW, holders=(Holder(NEW, 7),), flags=F_ALLOW_MULTI)


def direct(*programs: Program, flags: int = F_ALLOW_MULTI, **more: Any) -> Observed:
    """The hook with programs attached directly."""
    held = tuple(Holder(program) for program in programs)
    return replace(EMPTY, holders=held, flags=flags, **more)


def with_mode(mode: str, link: str = "", present: bool = True) -> Desired:
    """The declaration, in another mode."""
    return replace(DESIRED, mode=mode, link=link, present=present)


def steps(desired: Desired, observed: Observed) -> list[tuple[str, int]]:
    """What the plan does, and to what."""
    return [(change.detail.do, change.detail.id) for change in plan(desired, observed)]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (EMPTY, [("create link", 0)]),
        (LINKED, []),
        (replace(LINKED, link=replace(LINK, prog_id=10)), [("update link", 10)]),
        (replace(EMPTY, link=replace(LINK, cgroup_id=0)), [("create link", 0)]),
        (replace(EMPTY, link=replace(LINK, cgroup_id=1)), [("create link", 0)]),
        (replace(EMPTY, link=replace(LINK, attach_type="cgroup_device")), [("create link", 0)]),
        (replace(LINKED, link=None), [("adopt link", 7)]),
        (replace(EMPTY, staged=True), [("create link", 0)]),
        (replace(LINKED, staged=True), [("discard", 0)]),
        (direct(FOREIGN), [("create link", 0)]),
        (direct(NEW), [("create link", 0), ("detach", 20)]),
        (direct(OLD, FOREIGN), [("create link", 0), ("detach", 10)]),
        (
            replace(LINKED, holders=(Holder(NEW, 7), Holder(NEW))),
            [("detach", 20)],
        ),
        (replace(EMPTY, program=None), [("missing", 0)]),
    ],
)
def test_link(observed: Observed, expected: list[tuple[str, int]]) -> None:
    assert steps(DESIRED, observed) == expected


@pytest.mark.parametrize(
    ("mode", "observed", "expected"),
    [
        ("multi", EMPTY, [("attach", 0)]),
        ("multi", direct(NEW, FOREIGN), []),
        ("multi", direct(FOREIGN), [("attach", 0)]),
        ("multi", direct(FOREIGN, OLD), [("replace program", 10)]),
        ("multi", direct(OLD, NEW), [("detach", 10)]),
        ("override", EMPTY, [("attach", 0)]),
        ("override", direct(NEW, flags=F_ALLOW_OVERRIDE), []),
        ("override", direct(OLD, flags=F_ALLOW_OVERRIDE), [("replace program", 10)]),
        ("exclusive", direct(OLD, flags=0), [("replace program", 10)]),
    ],
)
def test_direct(mode: str, observed: Observed, expected: list[tuple[str, int]]) -> None:
    assert steps(with_mode(mode), observed) == expected


def test_what_another_pin_names_is_no_older_version() -> None:
    observed = replace(EMPTY, holders=(Holder(OLD, pinned=True),), flags=F_ALLOW_MULTI)
    assert steps(with_mode("multi"), observed) == [("attach", 0)]


def test_another_stack_is_no_older_version() -> None:
    observed = direct(replace(OLD, stack="mail"))
    assert steps(with_mode("multi"), observed) == [("attach", 0)]


def test_from_link_to_direct_attaches_first() -> None:
    changes = plan(with_mode("multi", "/bpf/link"), LINKED)
    assert [change.detail.do for change in changes] == ["attach", "release"]
    assert "for a moment both" in changes[0].warning


def test_exclusive_warns_of_what_it_forbids() -> None:
    (change,) = plan(with_mode("exclusive"), EMPTY)
    assert "nothing can be attached to cgroup_sock_ops below /cg/a" in change.warning


@pytest.mark.parametrize(
    ("desired", "observed", "message"),
    [
        (DESIRED, replace(EMPTY, blocker="/cg holds program 5"), "/cg holds program 5, which"),
        (with_mode("multi"), replace(EMPTY, blocker="/cg holds"), "which forbids it"),
        (DESIRED, direct(OLD, flags=0), "no way over without a gap"),
        (DESIRED, direct(FOREIGN, flags=0), "foreign and left alone; its owner"),
        (with_mode("exclusive"), direct(FOREIGN), "declare mode link or multi"),
        (with_mode("exclusive"), LINKED, "with link 7, and mode exclusive cannot share"),
        (with_mode("override"), direct(NEW, flags=0), "without a gap"),
        (with_mode("exclusive"), direct(FOREIGN, flags=0), "would silently replace it"),
        (with_mode("multi"), replace(LINKED, link=None), "link 7 attaches program 20"),
    ],
)
def test_refused(desired: Desired, observed: Observed, message: str) -> None:
    with pytest.raises(Failure, match=message):
        plan(desired, observed)


def test_what_is_attached_already_needs_no_leave_from_above() -> None:
    assert steps(DESIRED, replace(LINKED, blocker="/cg holds program 5")) == []


@pytest.mark.parametrize(
    ("mode", "observed", "expected"),
    [
        ("link", EMPTY, []),
        ("link", LINKED, [("release", 0)]),
        ("link", replace(EMPTY, cgroup_id=0, link=LINK), [("release", 0)]),
        ("link", replace(EMPTY, staged=True), [("discard", 0)]),
        ("link", direct(NEW), []),
        ("multi", direct(NEW, FOREIGN), [("detach", 20)]),
        ("multi", direct(OLD, FOREIGN), [("detach", 10)]),
        ("multi", direct(FOREIGN), []),
        ("exclusive", direct(FOREIGN, flags=0), []),
        ("multi", direct(OLD, FOREIGN, program=None), [("detach", 10)]),
        ("multi", direct(replace(OLD, name="other"), program=None), []),
    ],
)
def test_absent(mode: str, observed: Observed, expected: list[tuple[str, int]]) -> None:
    desired = with_mode(mode, "/bpf/link" if mode == "link" else "", present=False)
    assert steps(desired, observed) == expected


@pytest.mark.parametrize(
    ("attached", "forbids"),
    [
        (Attached(()), None),
        (Attached((), F_ALLOW_MULTI), None),
        (Attached((5,), F_ALLOW_MULTI), False),
        (Attached((5,), F_ALLOW_OVERRIDE), False),
        (Attached((5,), 0), True),
    ],
)
def test_what_a_cgroup_forbids_below(attached: Attached, forbids: bool | None) -> None:
    assert cgroups.forbids_below(attached) is forbids


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cgroup": ""}, "is no cgroup"),
        ({"cgroup": "a/../../b"}, "is no cgroup"),
        ({"link": None}, "set the option link"),
        ({"prog": None}, "needs prog"),
        ({"attach_type": "xdp"}, "is no hook of a cgroup"),
        ({"mode": "multi", "prog": None, "state": "absent"}, "needs prog"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    given = {"cgroup": "a", "prog": "web/watch", "link": "web/link", **options}
    with pytest.raises(Failure, match=message):
        cgroup.desired(given)


def test_options() -> None:
    read = cgroup.desired(
        {"cgroup": "a", "prog": "web/watch", "link": "/bpf/l", "attach_type": "connect4"}
    )
    assert read == Desired(
        "a",
        "/sys/fs/bpf/ebpf_fleet/web/watch",
        "cgroup_inet4_connect",
        "/bpf/l",
        "link",
        present=True,
        allow_root=False,
    )
