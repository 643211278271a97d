# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ids that a load balancer's declaration gets, and the plans: pure functions."""

from __future__ import annotations

import dataclasses
from array import array
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import (
    layout,
    members,
    model,
    moves,
    plan,
    targets,
    wanted,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.layout import RING_SLOTS, Settings
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.moves import Ring
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.tables import Tables
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.writes import Writes, merge
from ansible_collections.ebpf.fleet.tests.unit.lb_declared import backend, declare, service

LIMITS = {
    "services4": 64,
    "services6": 64,
    "service_names": 9,
    "rings": 9,
    "service_counters": 9,
    "backends": 17,
    "backend_counters": 17,
}
EMPTY = Tables(limits=LIMITS)


def slots(*ids: int) -> array[int]:
    """A ring in which the backends take turns."""
    return (
        array("H", [ids[slot % len(ids)] for slot in range(RING_SLOTS)])
        if ids
        else array("H", bytes(2 * RING_SLOTS))
    )


def aim(desired: model.Desired, tables: Tables) -> tuple[targets.Target, ...]:
    """The targets as the kernel would give them, but with backends that take turns."""
    found = []
    rings = targets.rings(tables)
    for each in wanted.place(desired, tables, ()):
        assignment = slots(*(member.id for member in members.members(each.backends)))
        old = rings.get(each.id)
        stay = members.lingering(each.backends, each.forwarding)
        ring = moves.move(old, assignment, stay, 7) if old else moves.first(assignment, 7)
        moved = moves.moved(old.backends, ring.backends) if old else 0
        found.append(targets.Target(each, ring, moved))
    return tuple(found)


def planned(
    desired: model.Desired, tables: Tables, live: dict[int, int] | None = None
) -> list[Any]:
    facts = plan.Facts(tables, targets.rings(tables), live or {}, aim(desired, tables))
    return plan.changes(desired, facts)


def write(tables: Tables, writes: Writes) -> Tables:
    """The tables after the writes."""

    def over(old: Any, new: Any) -> Any:
        return {key: value for key, value in {**old, **new}.items() if value}

    rings = {key: ring.pack() if ring else None for key, ring in writes.rings.items()}
    return Tables(
        over(tables.services, writes.entries),
        over(tables.names, writes.names),
        over(tables.backends, writes.backends),
        over(tables.rings, rings),
        writes.settings or tables.settings,
        layout.pack_filter(over(tables.services, writes.entries)),
        tables.limits,
    )


def converged(desired: model.Desired, tables: Tables = EMPTY) -> Tables:
    return write(tables, merge(change.detail for change in planned(desired, tables)))


def test_a_converged_balancer_needs_nothing_in_any_order() -> None:
    web = service(backends=[backend(), backend("10.0.0.12", weight=3)])
    dns = service(
        name="dns",
        protocol="udp",
        port="53",
        forwarding="nat",
        backends=[backend("10.0.0.21", port=5353)],
    )
    tables = converged(declare(web, dns))
    web["backends"].reverse()
    assert planned(declare(dns, web), tables) == []
    assert tables.settings.layout == layout.LAYOUT
    assert tables.settings.flags == layout.SETTINGS_NAT4 | layout.SETTINGS_FILTER


def test_ports_that_the_host_takes_itself_are_warned_of() -> None:
    desired = declare(service(forwarding="nat"))
    facts = plan.Facts(EMPTY, {}, {}, aim(desired, EMPTY), ports=frozenset(range(32000, 61000)))
    settings = plan.changes(desired, facts)[0]
    assert settings.target == "settings"
    assert "share 768, from 32000 to 32767" in settings.warning


def test_ports_do_not_matter_without_nat() -> None:
    desired = declare(service())
    facts = plan.Facts(EMPTY, {}, {}, aim(desired, EMPTY), ports=frozenset(range(1024, 65536)))
    assert [each.warning for each in plan.changes(desired, facts)] == ["", ""]


def test_entries_hold_each_service_and_each_address_once() -> None:
    tables = converged(
        declare(
            service(),
            service(name="tls", port="443"),
            service(name="six", vip="2001:db8::1", port="any", backends=[backend("fd00::11")]),
        )
    )
    keys = sorted(
        (str(key.address), key.port, key.protocol)
        for key in map(layout.ServiceKey.unpack, tables.services)
    )
    assert keys == [
        ("192.0.2.10", 0, 1),
        ("192.0.2.10", 80, 6),
        ("192.0.2.10", 443, 6),
        ("2001:db8::1", 0, 6),
        ("2001:db8::1", 0, 58),
    ]  # fmt: skip
    assert tables.settings.flags == layout.SETTINGS_ANY_PORT | layout.SETTINGS_FILTER


def test_a_drained_backend_shows_its_weight_its_slots_and_its_connections() -> None:
    both = [backend(weight=10), backend("10.0.0.12", weight=10)]
    tables = converged(declare(service(backends=both)))
    both[1]["state"] = "draining"
    (change,) = planned(declare(service(backends=both)), tables, {2: 5})
    assert str(change) == "change service web"
    assert change.before is not None
    assert change.before["backends"]["10.0.0.12"] == {"weight": 10, "state": "active", "health": "unknown", "slots": 32768, "connections": 5}  # fmt: skip
    assert change.after is not None
    assert change.after["backends"]["10.0.0.12"] == {"weight": 0, "state": "draining", "health": "unknown", "slots": 0, "connections": 5}  # fmt: skip
    assert change.after["slots_moved"] == change.after["slots_leaving"] == 32768
    assert change.warning == ""


def test_a_backend_that_is_removed_with_connections_is_warned_of() -> None:
    tables = converged(declare(service(backends=[backend(), backend("10.0.0.12")])))
    (change,) = planned(declare(service()), tables, {2: 5})
    assert (
        "5 connections to backend 10.0.0.12 break; set its state to draining first"
        in change.warning
    )
    assert change.detail.backends == {2: None}


def test_an_id_is_kept_and_a_new_one_is_one_that_was_not_in_use() -> None:
    tables = converged(declare(service(backends=[backend(), backend("10.0.0.12")])))
    placed = wanted.place(
        declare(service(backends=[backend("10.0.0.12"), backend("10.0.0.13")])), tables, {3, 4}
    )
    assert sorted(placed[0].backends) == [2, 5]


def test_ids_are_given_again_when_the_last_was_given() -> None:
    desired = declare(service(backends=[backend(f"10.0.0.{number}") for number in range(1, 17)]))
    tables = converged(desired)
    assert sorted(tables.backends) == list(range(1, 17))
    smaller = declare(service(backends=[backend(f"10.0.0.{number}") for number in range(2, 17)]))
    left = converged(smaller, tables)
    placed = wanted.place(desired, left, ())
    assert sorted(placed[0].backends) == list(range(1, 17))


def test_an_exchange_that_does_not_fit_says_how_to_do_it() -> None:
    tables = converged(
        declare(service(backends=[backend(f"10.0.0.{number}") for number in range(1, 17)]))
    )
    with pytest.raises(
        Failure, match=r"no room for the new beside the old.*xdp_lb_max_backends of the role"
    ):
        wanted.place(declare(service(backends=[backend("10.0.1.1")])), tables, ())


@pytest.mark.parametrize(
    ("services", "message"),
    [
        ([service(name=f"s{port}", port=str(port)) for port in range(1, 10)], r"9 services are declared, .* hold 8; grow .*\(xdp_lb_max_services of the role"),
        ([service(backends=[backend(f"10.0.{host}.1") for host in range(17)])], r"17 backends are declared.* hold 16; grow .*\(xdp_lb_max_backends of"),
    ],
)  # fmt: skip
def test_more_than_the_maps_hold_is_refused(services: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(Failure, match=message):
        wanted.place(declare(*services), EMPTY, ())


def test_more_addresses_than_the_maps_hold_are_refused() -> None:
    few = Tables(limits={**LIMITS, "services4": 1})
    with pytest.raises(
        Failure,
        match=r"2 IPv4 services and addresses are declared, and the pinned maps hold 1; grow services4",
    ):
        wanted.place(declare(service()), few, ())


def test_a_service_may_move_to_another_port_and_keeps_its_id() -> None:
    tables = converged(declare(service()))
    (change,) = planned(declare(service(port="81")), tables)
    assert change.before is not None
    assert change.after is not None
    assert change.before["serves"] == ["192.0.2.10:80/tcp dsr by flow"]
    assert change.after["serves"] == ["192.0.2.10:81/tcp dsr by flow"]
    after = write(tables, change.detail)
    assert len(after.services) == 2
    assert after.rings == tables.rings


def test_two_services_may_exchange_their_ports() -> None:
    tables = converged(declare(service(), service(name="other", port="81")))
    exchanged = declare(service(port="81"), service(name="other"))
    after = converged(exchanged, tables)
    assert planned(exchanged, after) == []
    assert len(after.services) == 3


def test_the_address_goes_with_its_last_service() -> None:
    tables = converged(declare(service(), service(name="other", port="81")))
    one = converged(declare(service()), tables)
    assert len(one.services) == 2
    assert converged(declare(), one).services == {}


def test_what_was_changed_behind_our_back_is_repaired() -> None:
    desired = declare(service(), service(name="other", port="81"))
    good = converged(desired)
    entry = next(iter(good.services))
    record = dataclasses.replace(good.backends[1], weight=9)
    wrong = [
        dataclasses.replace(good, services={}),
        dataclasses.replace(good, services={**good.services, entry: bytes(8)}),
        dataclasses.replace(good, services={**good.services, b"\1" * 8: bytes(8)}),
        dataclasses.replace(good, backends={}),
        dataclasses.replace(good, backends={**good.backends, 1: record}),
        dataclasses.replace(good, backends={**good.backends, 9: good.backends[1]}),
        dataclasses.replace(
            good, backends={**good.backends, 9: dataclasses.replace(record, service=7)}
        ),
        dataclasses.replace(good, names={**good.names, 1: "mine"}),
        dataclasses.replace(good, names={**good.names, 5: "web"}),
        dataclasses.replace(good, rings={}),
        dataclasses.replace(good, rings={**good.rings, 1: Ring(slots(2), slots(), 7).pack()}),
        dataclasses.replace(good, rings={**good.rings, 7: good.rings[1]}),
        dataclasses.replace(good, settings=dataclasses.replace(good.settings, nat_port_last=1025)),
        dataclasses.replace(good, settings=Settings()),
        dataclasses.replace(good, filter=bytes(8192)),
    ]
    for tables in wrong:
        assert planned(desired, tables) != []
        after = converged(desired, tables)
        assert planned(desired, after) == []
        assert sorted(after.names.values()) == ["other", "web"]
        assert len(after.backends) == 2
        assert len(after.rings) == 2
        assert len(after.services) == 3


def test_health_is_kept_where_it_is_checked() -> None:
    checked = service(health_check={"type": "tcp"}, backends=[backend(), backend("10.0.0.12")])
    tables = converged(declare(checked))
    down = dataclasses.replace(tables.backends[2], health=members.DOWN)
    tables = converged(
        declare(checked), dataclasses.replace(tables, backends={**tables.backends, 2: down})
    )
    assert tables.backends[2].health == members.DOWN
    assert set(targets.rings(tables)[1].backends) == {1}
    (change,) = planned(declare({**checked, "health_check": None}), tables)
    assert change.detail.backends[2].health == 0


def test_most_backends_down_keeps_all_in_the_ring() -> None:
    checked = service(
        health_check={"type": "tcp"}, backends=[backend(f"10.0.0.{number}") for number in (1, 2, 3)]
    )
    tables = converged(declare(checked))
    down = {
        number: dataclasses.replace(tables.backends[number], health=members.DOWN)
        for number in (1, 2)
    }
    records = {**tables.backends, **down}
    assert members.keeps_all(records)
    assert [member.id for member in members.members(records)] == [1, 2, 3]


def test_no_active_backend_is_warned_of() -> None:
    changes = planned(declare(service(backends=[backend(state="draining")])), EMPTY)
    assert "no backend is active, so new connections are dropped" in changes[-1].warning


def test_absent_removes_everything() -> None:
    tables = converged(declare(service(), service(name="other", port="81")))
    absent = declare(state="absent")
    changes = planned(absent, tables, {1: 3})
    assert [str(change) for change in changes] == [
        "clear settings",
        "remove service other",
        "remove service web",
    ]
    assert changes[2].warning == "service web: its 3 connections break"
    after = write(tables, merge(change.detail for change in changes))
    assert after == Tables(settings=Settings(), limits=LIMITS)
    assert planned(absent, after) == []


def test_another_source_is_warned_of_where_it_breaks_connections() -> None:
    nat = service(forwarding="nat")
    tables = converged(declare(nat))
    (change,) = planned(declare(nat, sources={"ipv4": "10.0.0.2"}), tables)
    assert str(change) == "set settings"
    assert "connections of nat services break" in change.warning


def test_a_host_without_a_balancer_gets_a_prediction() -> None:
    changes = plan.fresh(declare(service()), "not pinned yet")
    assert [str(change) for change in changes] == ["add service web"]
    assert changes[0].warning == "not pinned yet"
    assert changes[0].detail is None


def test_only_backends_that_get_packets_anew_are_looked_up() -> None:
    both = [backend(), backend("10.0.0.12", state="disabled")]
    tables = converged(declare(service(backends=both)))

    def asked(*backends: dict[str, Any], **options: Any) -> list[str]:
        (placed,) = wanted.place(declare(service(backends=list(backends), **options)), tables, ())
        return [str(each.address) for each in plan.new_backends(placed, tables)]

    assert asked(*both) == []
    assert asked(both[0], backend("10.0.0.12")) == ["10.0.0.12"]
    assert asked(both[0], backend("10.0.0.13")) == ["10.0.0.13"]
    assert asked(both[0], forwarding="ipip") == ["10.0.0.11"]
