# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the accelerator reports of sockets, as connections; and that the records are those of its header."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
import yaml

from ansible_collections.ebpf.fleet.plugins.module_utils.trace import accelerated
from ansible_collections.ebpf.fleet.plugins.module_utils.trace.accelerated import Event

ROOT = Path(__file__).resolve().parents[2]
HEADER = (ROOT / "bpf/sockmap/sockmap.h").read_text(encoding="utf-8")
ONE, OTHER = ("127.0.0.1", 40000), ("127.0.0.1", 80)


def enumerators(name: str) -> list[str]:
    """The enumerators of an enum of the header, in their order."""
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER, re.DOTALL)
    assert body
    return re.findall(r"^\t([A-Z_]+)", body[1], re.MULTILINE)


def event(at: int, cookie: int, kind: str, reason: str = "", *, turned: bool = False) -> Event:
    ends = (OTHER, ONE) if turned else (ONE, OTHER)
    return Event(at, cookie, *ends, kind, reason)


def test_the_names_are_those_of_the_header() -> None:
    assert enumerators("event_kind") == [f"EVENT_{kind.upper()}" for kind in accelerated.KINDS[1:]]
    reasons = enumerators("event_reason")
    assert reasons[0] == "REASON_NONE"
    assert reasons[1:] == [f"REASON_{reason.upper()}" for reason in accelerated.REASONS[1:]]


def test_the_playbook_has_words_for_each_reason() -> None:
    file = ROOT / "playbooks/vars/trace_connections.yml"
    words = yaml.safe_load(file.read_text(encoding="utf-8"))["connections_reasons"]
    assert list(words) == list(accelerated.REASONS[1:])


def test_a_record_is_read_as_the_header_lays_it_out() -> None:
    addresses = [ipaddress.ip_address(text).packed for text in ("::ffff:192.0.2.1", "2001:db8::1")]
    ports = [int.from_bytes(port.to_bytes(2, "big"), "little") for port in (8080, 443)]
    raw = accelerated.RECORD.pack(7, 9, *addresses, *ports, 4, 10, 0)
    assert len(raw) == 56
    assert accelerated.parse(raw) == Event(
        7, 9, ("192.0.2.1", 8080), ("2001:db8::1", 443), "to_tcp", "backlog"
    )


def test_a_reason_of_a_newer_data_plane_is_its_number() -> None:
    raw = accelerated.RECORD.pack(7, 9, bytes(16), bytes(16), 0, 0, 200, 201, 0)
    found = accelerated.parse(raw)
    assert (found.kind, found.reason) == ("200", "201")


@pytest.mark.parametrize(
    ("events", "state", "reasons"),
    [
        ([event(1, 1, "admitted"), event(2, 2, "admitted", turned=True)], "undecided", []),
        (
            [event(1, 1, "admitted"), event(2, 2, "admitted", turned=True), event(3, 1, "paired")],
            "accelerated",
            [],
        ),
        (
            [
                event(1, 1, "admitted"),
                event(2, 2, "admitted", turned=True),
                event(3, 1, "paired"),
                event(4, 1, "to_tcp", "backlog"),
            ],
            "fell_back",
            ["backlog"],
        ),
        (
            [
                event(1, 1, "left_on_tcp", "not_policy"),
                event(2, 2, "left_on_tcp", "not_policy", turned=True),
            ],
            "tcp",
            ["not_policy"],
        ),
    ],
)
def test_two_ends_are_one_connection(events: list[Event], state: str, reasons: list[str]) -> None:
    (found,) = accelerated.connections(reversed(events))
    assert (found.state, found.reasons, len(found.ends)) == (state, reasons, 2)


def test_ports_that_are_used_again_make_another_connection() -> None:
    events = [event(at, at, "admitted", turned=at % 2 == 0) for at in range(1, 7)]
    assert [len(found.ends) for found in accelerated.connections(events)] == [2, 2, 2]


def test_one_end_is_a_connection_by_itself() -> None:
    events = [event(1, 1, "admitted"), event(2, 1, "to_tcp", "no_peer")]
    (found,) = accelerated.connections(events)
    assert (found.state, found.reasons, len(found.ends)) == ("tcp", ["no_peer"], 1)
