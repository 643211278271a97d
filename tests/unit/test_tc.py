# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for a program in traffic control, a pure function of what is declared and seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import LinkInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import tc
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.linked import Program
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.tc_plan import (
    Desired,
    Link,
    Observed,
    Slot,
)

PROG, LINK = "/sys/fs/bpf/ebpf_fleet/meter/count", "/sys/fs/bpf/ebpf_fleet/meter/link"
FILTER = Desired("eth0", "", "ingress", PROG, "", 50, 1, False, True)
BY_LINK = replace(FILTER, link=LINK)

OLD = Program(1, "count", "sched_cls", "aa" * 8, True, "meter")
NEW = Program(2, "count", "sched_cls", "aa" * 8, True, "meter")
OTHER_STACK = Program(3, "count", "sched_cls", "aa" * 8, True, "dns")
FOREIGN = Program(4, "filter", "sched_cls", "bb" * 8)

FREE = Observed(2, NEW)
CLSACT = replace(FREE, qdisc="clsact", created=True)


def link(number: int, prog: Program, ifindex: int = 2) -> LinkInfo:
    """A pinned TCX link."""
    return LinkInfo(number, "tcx", prog.id, "tcx_ingress", ifindex=ifindex)


def linked(prog: Program) -> Observed:
    """The interface with a program held by the declared link."""
    return replace(FREE, link=link(7, prog), link_program=prog, tcx=(Link(prog, 7),))


def slots(*found: Slot) -> Observed:
    """The interface with these filters in a qdisc that was added here."""
    return replace(CLSACT, slots=found)


def slot(prog: Program, priority: int = 50, handle: int = 1) -> Slot:
    """A filter."""
    return Slot(priority, handle, "bpf", prog)


def steps(desired: Desired, observed: Observed) -> list[str]:
    """The plan in words."""
    return [change.detail.do for change in tc.plan(desired, observed)]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (FILTER, FREE, ["add qdisc", "add filter"]),
        (FILTER, CLSACT, ["add filter"]),
        (FILTER, replace(FREE, qdisc="ingress"), ["add filter"]),
        (FILTER, slots(slot(NEW)), []),
        (FILTER, slots(slot(OLD)), ["replace filter"]),
        (FILTER, slots(slot(OTHER_STACK, 60)), ["add filter"]),
        (FILTER, slots(slot(FOREIGN, handle=2)), ["add filter"]),
        (FILTER, slots(replace(slot(FOREIGN), chain=3)), ["add filter"]),
        (FILTER, slots(replace(slot(NEW), direct_action=False)), ["replace filter"]),
        (replace(FILTER, force=True), slots(slot(FOREIGN)), ["replace filter"]),
        (FILTER, replace(CLSACT, tcx=(Link(FOREIGN, 8),)), ["add filter"]),
        (FILTER, replace(FREE, program=None), ["missing"]),
        (BY_LINK, FREE, ["create link"]),
        (BY_LINK, linked(NEW), []),
        (BY_LINK, linked(OLD), ["update link"]),
        (BY_LINK, replace(linked(NEW), staged_id=8), ["discard"]),
        (BY_LINK, replace(FREE, link=link(7, NEW, 0), link_program=NEW), ["create link"]),
        (BY_LINK, replace(FREE, tcx=(Link(FOREIGN, 8),)), ["create link"]),
        (BY_LINK, replace(FREE, tcx=(Link(NEW, 8),)), ["adopt"]),
        (BY_LINK, replace(FREE, tcx=(Link(OLD, 8),), staged_id=8), ["adopt", "update link"]),
        (BY_LINK, slots(slot(OLD)), ["create link", "delete filter", "remove qdisc"]),
        (BY_LINK, slots(slot(FOREIGN)), ["create link"]),
        (BY_LINK, replace(slots(slot(NEW)), created=False), ["create link", "delete filter"]),
    ],
)
def test_present(desired: Desired, observed: Observed, expected: list[str]) -> None:
    assert steps(desired, observed) == expected


GONE = replace(FILTER, present=False)


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (GONE, Observed(), []),
        (GONE, FREE, []),
        (GONE, CLSACT, ["remove qdisc"]),
        (GONE, replace(CLSACT, created=False), []),
        (GONE, replace(CLSACT, elsewhere=1), []),
        (GONE, slots(slot(OLD)), ["delete filter", "remove qdisc"]),
        (GONE, slots(slot(OLD), slot(FOREIGN, 60)), ["delete filter"]),
        (GONE, replace(slots(slot(OLD)), created=False), ["delete filter"]),
        (GONE, replace(slots(slot(OLD)), elsewhere=2), ["delete filter"]),
        (GONE, slots(slot(FOREIGN)), []),
        (GONE, slots(slot(OTHER_STACK)), []),
        (replace(GONE, force=True), slots(slot(FOREIGN)), ["delete filter", "remove qdisc"]),
        (GONE, replace(slots(slot(OLD)), program=None), ["delete filter", "remove qdisc"]),
        (replace(GONE, prog=PROG + "2"), replace(slots(slot(OLD)), program=None), []),
        (replace(GONE, link=LINK), linked(OLD), ["release"]),
        (replace(GONE, link=LINK), slots(slot(OLD)), []),
    ],
)
def test_absent(desired: Desired, observed: Observed, expected: list[str]) -> None:
    assert steps(desired, observed) == expected


@pytest.mark.parametrize(
    ("desired", "observed", "message"),
    [
        (FILTER, slots(slot(FOREIGN)), r"program 4 \(filter, sched_cls\), pref 50 .*not loaded"),
        (FILTER, slots(slot(OTHER_STACK)), r"which belongs to another stack \(dns\)"),
        (FILTER, slots(Slot(50, 9, "u32")), "a u32 filter, pref 50 .*declare another priority"),
        (FILTER, slots(replace(slot(NEW), for_all_protocols=False)), "of one kind and protocol"),
        (FILTER, linked(OLD), r"link 7 attaches program 1 .* would run it twice"),
        (replace(FILTER, direction="egress"), replace(FREE, qdisc="ingress"), "has no egress"),
        (BY_LINK, replace(FREE, tcx=(Link(NEW, 0),)), "without a link .TCX.*takes it once only"),
    ],
)
def test_refused(desired: Desired, observed: Observed, message: str) -> None:
    with pytest.raises(Failure, match=message):
        tc.plan(desired, observed)


def test_a_kernel_without_tcx_is_named_with_the_other_way() -> None:
    tc.require_tcx(BY_LINK, True, "6.6.1")
    with pytest.raises(Failure, match=r"\(6\.1\.0\) has no TCX links, which Linux 6\.6.*clsact"):
        tc.require_tcx(BY_LINK, False, "6.1.0")


def test_what_runs_twice_is_announced() -> None:
    (change,) = tc.plan(FILTER, slots(slot(OLD, 60)))
    assert "runs it a second time: program 1 (count, sched_cls), pref 60" in change.warning
    change = tc.plan(BY_LINK, slots(slot(OLD)))[0]
    assert "for a moment the link runs beside" in change.warning
