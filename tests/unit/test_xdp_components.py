# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Components of a dispatcher: the plan, their order, and the configuration as libxdp lays it out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import btf, xdp_dispatcher
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.xdp_dispatcher import Config, Slot
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import xdp
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.linked import Program
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.xdp_chain import (
    Chain,
    Component,
    joined,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.xdp_plan import (
    Desired,
    Holder,
    Observed,
)

PROG = "/sys/fs/bpf/ebpf_fleet/lb/balancer"
DESIRED = Desired("eth0", "", PROG, "", "auto", False, True)
GONE = replace(DESIRED, present=False)

OLD = Component(Program(1, "balancer", "ext", "aa" * 8, True, "lb"), Slot())
NEW = Component(Program(2, "balancer", "ext", "aa" * 8, True, "lb"), Slot())
DNS = Component(Program(3, "guard", "ext", "cc" * 8, True, "dns"), Slot(60))
FILTER = Component(Program(4, "filter", "ext", "bb" * 8), Slot(10))
TRACER = Component(Program(5, "tracer", "ext", "dd" * 8), Slot(50))

DISPATCHER = Program(9, "xdp_dispatcher", "xdp", "ee" * 8)
FOREIGN = Program(8, "filter", "xdp", "bb" * 8)

FREE = Observed(2, NEW.program, component=NEW, native=True)


def shared(*components: Component, mode: str = "native", problem: str = "") -> Observed:
    """The interface with a dispatcher that calls these."""
    chain = Chain(DISPATCHER.id, components, problem=problem)
    return replace(FREE, holders=(Holder(DISPATCHER, mode),), chain=chain)


def order(desired: Desired, observed: Observed) -> list[int] | None:
    """The ids of the components after the plan; None when nothing is to be done."""
    changes = xdp.plan(desired, observed)
    if not changes:
        return None
    (change,) = changes
    assert change.detail.do == "components"
    return [component.program.id for component in change.detail.components]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (DESIRED, FREE, [2]),
        (DESIRED, shared(NEW), None),
        (DESIRED, shared(FILTER, NEW, DNS), None),
        (DESIRED, shared(FILTER), [4, 2]),
        (DESIRED, shared(DNS), [2, 3]),
        (DESIRED, shared(FILTER, TRACER, DNS), [4, 2, 5, 3]),
        (DESIRED, shared(DNS, FILTER), [2, 3, 4]),
        (DESIRED, shared(FILTER, OLD, DNS), [4, 2, 3]),
        (DESIRED, shared(OLD, FILTER, NEW), [4, 2]),
        (replace(DESIRED, priority=0), shared(FILTER, NEW), [2, 4]),
        (replace(DESIRED, priority=51), shared(NEW, TRACER), [5, 2]),
        (replace(DESIRED, priority=50), shared(FILTER, NEW), None),
        (DESIRED, shared(FILTER, replace(NEW, slot=Slot(11))), [4, 2]),
        (DESIRED, shared(FILTER, replace(NEW, slot=Slot(50, 6))), [4, 2]),
        (replace(DESIRED, mode="generic"), shared(FILTER, mode="generic"), [4, 2]),
        (replace(DESIRED, force=True), replace(FREE, holders=(Holder(FOREIGN, "native"),)), [2]),
        (
            DESIRED,
            replace(FREE, holders=(Holder(replace(OLD.program, type="xdp"), "native"),)),
            [2],
        ),
        (GONE, shared(FILTER, NEW, DNS), [4, 3]),
        (GONE, shared(FILTER, OLD), [4]),
        (GONE, shared(OLD), []),
        (GONE, shared(FILTER), None),
        (GONE, replace(shared(FILTER, OLD), program=None, component=None), [4]),
        (GONE, replace(shared(FILTER, DNS), program=None, component=None), None),
        (replace(GONE, prog=""), replace(shared(FILTER, OLD, DNS), program=None), [4]),
        (replace(GONE, force=True), shared(FILTER, DNS), []),
        (GONE, shared(problem="there are no pins"), None),
        (GONE, FREE, None),
    ],
)
def test_order(desired: Desired, observed: Observed, expected: list[int] | None) -> None:
    assert order(desired, observed) == expected


@pytest.mark.parametrize(
    ("desired", "observed", "message"),
    [
        (replace(DESIRED, link="/sys/fs/bpf/l"), shared(FILTER), "leave out the option link"),
        (replace(DESIRED, mode="offload"), FREE, "components are not offloaded"),
        (replace(DESIRED, mode="generic"), shared(FILTER), "declare mode: auto or native"),
        (DESIRED, shared(problem="there are no pins"), "is a dispatcher, but there are no pins"),
        (DESIRED, replace(FREE, holders=(Holder(FOREIGN, "native"),)), "not loaded by ebpf.fleet"),
        (
            DESIRED,
            replace(FREE, holders=(Holder(OLD.program, "native", 7),)),
            "link 7 holds eth0 xdp .*detach that link first",
        ),
        (
            DESIRED,
            replace(shared(FILTER), program=replace(NEW.program, type="xdp")),
            r"runs filter \(program 4, priority 10\); to run beside them, load .* type: ext",
        ),
    ],
)
def test_refused(desired: Desired, observed: Observed, message: str) -> None:
    with pytest.raises(Failure, match=message):
        xdp.plan(desired, observed)


def test_a_full_dispatcher_takes_no_more_but_replaces() -> None:
    full = [Component(Program(n, f"p{n}", "ext", "ab" * 8), Slot(n)) for n in range(10, 20)]
    with pytest.raises(Failure, match="the dispatcher is full"):
        joined(full, NEW)
    assert len(joined([*full[:9], OLD], NEW)) == 10


def test_a_component_that_is_not_loaded_yet_is_predicted() -> None:
    (change,) = xdp.plan(DESIRED, replace(shared(FILTER), program=None, component=None))
    assert change.detail.do == "missing"
    assert "a real run needs it, loaded with type: ext" in change.warning
    assert change.after is not None
    assert change.after["components"] == ["filter (program 4, priority 10)", PROG]


def test_what_a_killed_run_left_is_found_whatever_is_declared() -> None:
    left = replace(shared(NEW), unfinished=("/sys/fs/bpf/ebpf_fleet/xdp_swap-2-1-8-9",))
    for desired in (DESIRED, replace(GONE, link="/sys/fs/bpf/l")):
        (change,) = xdp.plan(desired, left)
        assert str(change).startswith("discard unfinished dispatcher /sys/fs/bpf/ebpf_fleet/xdp_s")


@pytest.mark.parametrize("version", [1, 2])
def test_the_configuration_is_read_as_it_was_written(version: int) -> None:
    config = Config((Slot(-10, 4), Slot(2147483647, 6)), version)
    _functions, types = xdp_dispatcher._describe(2, version)
    assert xdp_dispatcher._decode(config.encode(), btf.parse(types)) == config
    assert len(config.encode()) == {1: 84, 2: 124}[version]


def test_a_later_version_is_unknown() -> None:
    later = bytes([236, 3]) + bytes(122)
    with pytest.raises(xdp_dispatcher.Unknown, match="version 3"):
        xdp_dispatcher._decode(later, btf.Btf(()))


def test_packets_in_pieces_need_every_component() -> None:
    whole, pieces = Slot(1), Slot(1, flags=xdp_dispatcher.HAS_FRAGS)
    assert Config((pieces, pieces)).has_frags
    assert not Config((pieces, whole)).has_frags
    assert not Config((pieces,), version=1).has_frags
