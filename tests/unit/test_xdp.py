# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for an XDP attachment, a pure function of what is declared and what is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import LinkInfo
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import xdp
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.linked import Program
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.xdp_plan import (
    Desired,
    Holder,
    Observed,
)

PROG, LINK = "/sys/fs/bpf/ebpf_fleet/lb/balancer", "/sys/fs/bpf/ebpf_fleet/lb/link"
BY_LINK = Desired("eth0", "", PROG, LINK, "auto", False, True)
DIRECT = replace(BY_LINK, link="")

OLD = Program(1, "balancer", "xdp", "aa" * 8, True, "lb")
NEW = Program(2, "balancer", "xdp", "aa" * 8, True, "lb")
OTHER_STACK = Program(3, "balancer", "xdp", "aa" * 8, True, "dns")
FOREIGN = Program(4, "filter", "xdp", "bb" * 8)

FREE = Observed(2, NEW, native=True)


def link(number: int, prog: Program, ifindex: int = 2) -> LinkInfo:
    """A pinned XDP link."""
    return LinkInfo(number, "xdp", prog.id, "xdp", ifindex=ifindex)


def linked(prog: Program, mode: str = "native") -> Observed:
    """The interface with a program held by the declared link."""
    held = (Holder(prog, mode, 7),)
    return replace(FREE, link=link(7, prog), link_program=prog, holders=held)


def direct(prog: Program, mode: str = "native", link_id: int = 0) -> Observed:
    """The interface with a program that the declared link does not hold."""
    return replace(FREE, holders=(Holder(prog, mode, link_id),))


def steps(desired: Desired, observed: Observed) -> list[str]:
    """The plan in words."""
    return [change.detail.do for change in xdp.plan(desired, observed)]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (BY_LINK, FREE, ["attach"]),
        (BY_LINK, linked(NEW), []),
        (BY_LINK, linked(NEW, "generic"), []),
        (BY_LINK, linked(OLD), ["update link"]),
        (BY_LINK, linked(FOREIGN), ["update link"]),
        (BY_LINK, replace(FREE, link=link(7, NEW, 0), link_program=NEW), ["attach"]),
        (BY_LINK, replace(FREE, link=link(7, NEW, 9), link_program=NEW), ["attach"]),
        (BY_LINK, direct(NEW), ["move"]),
        (BY_LINK, direct(NEW, link_id=8), ["adopt"]),
        (BY_LINK, direct(OLD, link_id=8), ["adopt", "update link"]),
        (BY_LINK, replace(direct(FOREIGN, link_id=8), staged_id=8), ["adopt", "update link"]),
        (BY_LINK, replace(linked(NEW), staged_id=8), ["discard"]),
        (replace(BY_LINK, mode="native"), linked(NEW, "generic"), ["move"]),
        (replace(BY_LINK, mode="offload"), linked(NEW, "offload"), []),
        (replace(BY_LINK, mode="offload"), direct(FOREIGN), ["attach"]),
        (BY_LINK, linked(NEW, "offload"), []),
        (replace(BY_LINK, force=True), direct(FOREIGN), ["move"]),
        (replace(BY_LINK, force=True), direct(FOREIGN, link_id=8), ["move"]),
        (replace(BY_LINK, force=True), direct(OTHER_STACK, link_id=8), ["move"]),
        (DIRECT, FREE, ["attach"]),
        (DIRECT, direct(NEW), []),
        (DIRECT, direct(OLD), ["replace"]),
        (replace(DIRECT, force=True), direct(FOREIGN), ["replace"]),
        (replace(DIRECT, force=True), direct(FOREIGN, link_id=8), ["move"]),
        (replace(DIRECT, mode="generic"), direct(NEW), ["move"]),
        (DIRECT, replace(FREE, program=None), ["missing"]),
    ],
)
def test_present(desired: Desired, observed: Observed, expected: list[str]) -> None:
    assert steps(desired, observed) == expected


GONE = replace(BY_LINK, present=False)
DIRECT_GONE = replace(DIRECT, present=False)


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (GONE, Observed(), []),
        (GONE, FREE, []),
        (GONE, linked(OLD), ["release"]),
        (GONE, direct(NEW), []),
        (GONE, replace(linked(NEW), staged_id=8), ["discard", "release"]),
        (DIRECT_GONE, direct(OLD, "generic"), ["detach"]),
        (DIRECT_GONE, direct(FOREIGN), []),
        (DIRECT_GONE, direct(OTHER_STACK), []),
        (replace(DIRECT_GONE, force=True), direct(FOREIGN), ["detach"]),
        (DIRECT_GONE, replace(direct(OLD), program=None), ["detach"]),
        (replace(DIRECT_GONE, prog=PROG + "2"), replace(direct(OLD), program=None), []),
        (replace(DIRECT_GONE, prog=""), replace(direct(OLD), program=None), ["detach"]),
        (replace(DIRECT_GONE, prog=""), replace(direct(FOREIGN), program=None), []),
    ],
)
def test_absent(desired: Desired, observed: Observed, expected: list[str]) -> None:
    assert steps(desired, observed) == expected


@pytest.mark.parametrize(
    ("desired", "observed", "message"),
    [
        (BY_LINK, direct(FOREIGN), r"program 4 \(filter, xdp\), tag b.* not loaded by ebpf.fleet"),
        (BY_LINK, direct(FOREIGN, link_id=8), r"native mode by a link \(8\) and was not loaded"),
        (DIRECT, direct(OTHER_STACK), r"belongs to another stack \(dns\)"),
        (DIRECT, linked(OLD), "set the option link to its pin to go on"),
        (DIRECT, replace(direct(FOREIGN), program=None), "force: true to displace it"),
        (DIRECT_GONE, direct(OLD, link_id=8), "set the option link to its pin to remove it"),
    ],
)
def test_refused(desired: Desired, observed: Observed, message: str) -> None:
    with pytest.raises(Failure, match=message):
        xdp.plan(desired, observed)


@pytest.mark.parametrize(("native", "mode"), [(True, "native"), (False, "generic"), (None, "auto")])
def test_the_mode_of_auto_is_predicted(native: bool | None, mode: str) -> None:
    (change,) = xdp.plan(BY_LINK, replace(FREE, native=native))
    assert change.after is not None
    assert change.after["mode"] == mode
    assert ("no native XDP" in change.warning) == (native is False)


def test_every_gap_is_announced() -> None:
    for observed in (direct(NEW), linked(NEW, "generic")):
        (change,) = xdp.plan(replace(BY_LINK, mode="native"), observed)
        assert "for a moment eth0 has no XDP program" in change.warning
