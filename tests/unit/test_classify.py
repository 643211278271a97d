# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose an object is and what is wrong with it, judged from hosts made up of plain values."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.info import (
    LinkInfo,
    MapInfo,
    ProgramInfo,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import attachments, classify
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.attachments import Attachment
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.inventory import Pin, Snapshot

HOME = "/sys/fs/bpf/ebpf_fleet/web"
OUR = {"owner": "ebpf.fleet", "stack": "web"}


def program(number: int, map_ids: tuple[int, ...] = ()) -> ProgramInfo:
    """A program named ``watch``."""
    return ProgramInfo(number, "sock_ops", "watch", "00", map_ids, 0, 0, 0, True, 0, 0, 0)


def host(
    origins: dict[int, dict[str, str]],
    pins: tuple[Pin, ...] = (),
    links: tuple[LinkInfo, ...] = (),
    legacy: tuple[Attachment, ...] = (),
    map_ids: tuple[int, ...] = (),
) -> classify.Known:
    """A host with these programs; every program uses the maps."""
    maps = {number: MapInfo(number, "hash", "m", 4, 4, 1, 0, 0, 0, 0) for number in (*map_ids, 99)}
    held = attachments.of_links(links, {5: "/cgroup"}, maps)
    return classify.learn(
        Snapshot(
            {number: program(number, map_ids) for number in origins},
            maps,
            {link.id: link for link in links},
            origins,
            pins,
            (*held, *legacy),
        )
    )


def link(prog_id: int, cgroup_id: int = 5) -> LinkInfo:
    """Link 7, to a cgroup."""
    return LinkInfo(7, "cgroup", prog_id, "cgroup_sock_ops", cgroup_id=cgroup_id)


def words(verdict: classify.Verdict) -> tuple[str, str]:
    """The verdict without its reason."""
    return verdict.owner, verdict.condition


PIN = Pin(f"{HOME}/watch", "program", 1)
LINK_PIN = Pin(f"{HOME}/watch_link", "link", 7)


def test_pinned_program_of_ours() -> None:
    assert words(classify.program(host({1: OUR}, (PIN,)), 1)) == ("ours", "ok")


def test_attached_program_of_ours_without_a_pin() -> None:
    known = host({1: OUR}, legacy=(Attachment("cgroup", "/cgroup", "cgroup_sock_ops", 1),))
    assert words(classify.program(known, 1)) == ("ours", "ok")


def test_orphan() -> None:
    assert words(classify.program(host({1: OUR}), 1)) == ("ours", "orphan")


def test_program_of_others() -> None:
    assert words(classify.program(host({1: {}}), 1)) == ("foreign", "ok")
    assert words(classify.program(host({1: {"owner": "someone"}}), 1)) == ("foreign", "ok")


def test_program_of_others_at_our_pin() -> None:
    verdict = classify.program(host({1: {}}, (PIN,)), 1)
    assert words(verdict) == ("foreign", "drifted")
    assert PIN.path in verdict.reason


def test_maps_are_ours_by_use_or_by_pin() -> None:
    known = host({1: OUR}, (Pin(f"{HOME}/made", "map", 99),), map_ids=(3,))
    assert [classify.map_(known, number).owner for number in (3, 99)] == ["ours", "ours"]
    known = host({1: {}}, (Pin("/sys/fs/bpf/other", "map", 99),), map_ids=(3,))
    assert [classify.map_(known, number).owner for number in (3, 99)] == ["foreign", "foreign"]


def test_link_of_ours() -> None:
    known = host({1: OUR}, (PIN, LINK_PIN), (link(1),))
    assert words(classify.link(known, 7)) == ("ours", "ok")
    held = known.host.attachments[0]
    assert held.target == "/cgroup"
    assert words(classify.attachment(known, held)) == ("ours", "ok")


def test_zombie() -> None:
    known = host({1: OUR}, (PIN, LINK_PIN), (link(1, cgroup_id=0),))
    assert words(classify.link(known, 7)) == ("ours", "zombie")
    assert known.host.attachments[0].target == ""


def test_zombie_of_others() -> None:
    assert words(classify.link(host({1: {}}, (), (link(1, 0),)), 7)) == ("foreign", "zombie")


def test_link_with_a_former_version() -> None:
    known = host({1: OUR, 2: OUR}, (PIN, LINK_PIN), (link(2),))
    verdict = classify.link(known, 7)
    assert words(verdict) == ("ours", "drifted")
    assert "program 2, but program 1 is pinned" in verdict.reason


def test_former_version_attached_without_a_link() -> None:
    legacy = Attachment("cgroup", "/cgroup", "cgroup_sock_ops", 2)
    known = host({1: OUR, 2: OUR}, (PIN,), legacy=(legacy,))
    assert words(classify.attachment(known, legacy)) == ("ours", "drifted")


def test_same_name_in_another_stack_is_no_version() -> None:
    other = {"owner": "ebpf.fleet", "stack": "other"}
    known = host({1: OUR, 2: other}, (PIN, LINK_PIN), (link(2),))
    assert words(classify.link(known, 7)) == ("ours", "ok")


def test_our_link_with_a_program_put_there_by_others() -> None:
    known = host({1: OUR, 2: {}}, (PIN, LINK_PIN), (link(2),))
    assert words(classify.link(known, 7)) == ("ours", "drifted")


def test_our_link_with_a_declared_program_of_others() -> None:
    pins = (Pin("/sys/fs/bpf/vendor", "program", 2), LINK_PIN)
    assert words(classify.link(host({2: {}}, pins, (link(2),)), 7)) == ("ours", "ok")


def test_link_that_only_a_process_holds() -> None:
    assert words(classify.link(host({1: OUR}, (PIN,), (link(1),)), 7)) == ("ours", "orphan")


def test_attachment_of_others() -> None:
    legacy = Attachment("cgroup", "/cgroup", "cgroup_sock_ops", 1)
    assert words(classify.attachment(host({1: {}}, legacy=(legacy,)), legacy)) == ("foreign", "ok")
