# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots that have moved: what is open stays where it was, what begins goes where it shall."""

from __future__ import annotations

import expect
import plane
import pytest
import tables
from expect import STATELESS, Mode
from network import FAR, NEAR, Host
from packets import PORT, VIPS, Client, client
from tables import CLIENT_FIN, OPEN, OPENING, RESET, FlowEntry

SERVICE = 1
OLD, NEW, NEXT = 11, 12, 13
HOSTS: dict[int, Host] = {OLD: NEAR[0], NEW: NEAR[1], NEXT: FAR[2]}
EMPTY = {"flows_opening": 0, "flows": 0, "flows_leaving": 0}


class Moved:
    """A service over TCP and one over UDP, all of whose slots have moved from OLD to NEW.

    The backends of the second have ids that are 10 higher.
    """

    def __init__(self, balancer: plane.Balancer, mode: Mode) -> None:
        self.balancer, self.mode = balancer, mode
        self.someone = client(mode.family)
        for service, protocol, base in ((SERVICE, tables.TCP, 0), (2, tables.UDP, 10)):
            balancer.service(service, VIPS[mode.family], PORT, protocol, mode.forwarding)
            for number, host in HOSTS.items():
                balancer.backend(base + number, service, host, mode.backends)
            self.move(base + NEW, base + OLD, service=service)

    def state(self, number: int, **state: int) -> None:
        self.balancer.backend(number, SERVICE, HOSTS[number], self.mode.backends, **state)

    def move(self, backend: int, previous: int, moved: int = 0, service: int = SERVICE) -> None:
        self.balancer.ring(service, tables.slot(backend, previous), moved)

    def goes_to(self, number: int, frame: bytes) -> None:
        host = HOSTS[number if number in HOSTS else number - 10]
        expect.forwarded(self.balancer, self.mode, frame, self.balancer.run(frame), host)

    def tcp(self, number: int, flags: str, payload: bytes = b"", who: Client | None = None) -> None:
        """The client's packet goes to this backend."""
        self.goes_to(number, bytes((who or self.someone).to("tcp", payload, flags=flags)))

    def udp(self, number: int, who: Client | None = None) -> None:
        self.goes_to(number + 10, bytes((who or self.someone).to("udp", b"data")))

    def key(self, who: Client | None = None, service: int = SERVICE) -> bytes:
        who = who or self.someone
        return tables.flow_key(who.address, who.port, PORT, service)

    def entry(self, table: str, service: int = SERVICE) -> FlowEntry | None:
        raw = self.balancer.get(table, self.key(service=service))
        return FlowEntry.of(raw) if raw else None

    def sizes(self) -> dict[str, int]:
        return {table: self.balancer.size(table) for table in EMPTY}

    def counted(self) -> tuple[int, int]:
        """Hits and misses."""
        return self.balancer.service_counters(SERVICE)[1:3]


@pytest.fixture(params=STATELESS, ids=str)
def moved(request: pytest.FixtureRequest, balancer: plane.Balancer) -> Moved:
    return Moved(balancer, request.param)


@pytest.mark.parametrize("flags", ["A", "PA", "SA", "R", "RA", "FA", "F", ""])
def test_what_was_open_stays(moved: Moved, flags: str) -> None:
    moved.tcp(OLD, flags, b"data")
    assert moved.sizes() == {**EMPTY, "flows_leaving": 1}
    assert moved.counted() == (0, 1)
    entry = moved.entry("flows_leaving")
    assert entry
    assert entry.backend == OLD
    assert abs(entry.seen - plane.seconds()) <= 2
    ending = (CLIENT_FIN if "F" in flags else 0) | (RESET if "R" in flags else 0)
    assert entry.state == OPEN | ending
    moved.tcp(OLD, "A")
    assert moved.counted() == (1, 1)
    assert moved.sizes() == {**EMPTY, "flows_leaving": 1}


def test_what_begins_goes_to_the_new_one(moved: Moved) -> None:
    moved.tcp(NEW, "S")
    assert moved.sizes() == {**EMPTY, "flows_opening": 1}
    assert moved.counted() == (0, 1)
    entry = moved.entry("flows_opening")
    assert entry
    assert (entry.backend, entry.state) == (NEW, OPENING)
    moved.tcp(NEW, "S")  # again, as the answer was lost
    assert moved.sizes() == {**EMPTY, "flows_opening": 1}
    moved.tcp(NEW, "A")
    assert moved.sizes() == {**EMPTY, "flows": 1}
    entry = moved.entry("flows")
    assert entry
    assert (entry.backend, entry.state) == (NEW, OPEN)
    for dummy in range(3):
        moved.tcp(NEW, "PA", b"data")
    assert moved.counted() == (5, 1)
    moved.tcp(NEW, "FA")
    moved.tcp(NEW, "A")
    entry = moved.entry("flows")
    assert entry
    assert entry.state == OPEN | CLIENT_FIN
    assert moved.sizes() == {**EMPTY, "flows": 1}


def test_syn_with_congestion_bits_begins_too(moved: Moved) -> None:
    moved.tcp(NEW, "SEC")
    moved.tcp(NEW, "A")


def test_data_in_the_first_packet(moved: Moved) -> None:
    """TCP Fast Open."""
    moved.tcp(NEW, "S", b"GET /")
    moved.tcp(NEW, "PA", b"more")


def test_a_reset_is_marked(moved: Moved) -> None:
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    moved.tcp(NEW, "R")
    entry = moved.entry("flows")
    assert entry
    assert entry.state & RESET


def test_a_port_is_used_again(moved: Moved) -> None:
    """A connection of before the move has ended; the next one of the same ports begins anew."""
    moved.tcp(OLD, "A")
    moved.tcp(OLD, "FA")
    moved.tcp(OLD, "A")
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    moved.tcp(NEW, "PA", b"data")
    assert moved.sizes() == {**EMPTY, "flows": 1}


def test_a_port_is_used_again_at_the_new_one(moved: Moved) -> None:
    for dummy in range(3):
        moved.tcp(NEW, "S")
        moved.tcp(NEW, "A")
        moved.tcp(NEW, "FA")
    assert moved.sizes() == {**EMPTY, "flows": 1}


def test_clients_do_not_share_entries(moved: Moved) -> None:
    family = moved.mode.family
    others = [client(family, 1), client(family, 0, 40001), client(family, 1, 40001)]
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    for other in others:
        moved.tcp(OLD, "A", who=other)
    moved.tcp(NEW, "A")
    assert moved.sizes() == {**EMPTY, "flows": 1, "flows_leaving": 3}


def test_a_slot_that_has_settled_needs_no_state(moved: Moved) -> None:
    moved.move(NEW, 0)
    for flags in ("S", "A", "FA", "R"):
        moved.tcp(NEW, flags)
    moved.udp(NEW)
    assert moved.counted() == (0, 0)
    assert moved.balancer.size("flows") == 0
    assert moved.balancer.size("flows_opening") == 0


def test_a_second_move(moved: Moved) -> None:
    """Those of the first and the second backend stay, and what begins goes to the third."""
    family = moved.mode.family
    first, second, third = (client(family, number) for number in range(3))
    moved.tcp(OLD, "A", who=first)
    moved.tcp(NEW, "S", who=second)
    moved.tcp(NEW, "A", who=second)
    moved.move(NEXT, NEW)
    moved.tcp(NEXT, "S", who=third)
    moved.tcp(NEXT, "A", who=third)
    for dummy in range(3):
        moved.tcp(OLD, "A", who=first)
        moved.tcp(NEW, "A", who=second)
        moved.tcp(NEXT, "A", who=third)


def test_back_again(moved: Moved) -> None:
    """A backend that left and returns keeps those of before, and those of in between keep theirs."""
    family = moved.mode.family
    before, between, after = (client(family, number) for number in range(3))
    moved.tcp(OLD, "A", who=before)
    moved.tcp(NEW, "S", who=between)
    moved.tcp(NEW, "A", who=between)
    moved.move(OLD, NEW)
    moved.tcp(OLD, "S", who=after)
    moved.tcp(OLD, "A", who=after)
    for dummy in range(3):
        moved.tcp(OLD, "A", who=before)
        moved.tcp(NEW, "A", who=between)
        moved.tcp(OLD, "A", who=after)


@pytest.mark.parametrize(
    "state",
    [{"state": tables.DRAINING}, {"health": tables.DOWN}, {"health": tables.UP}],
    ids=["draining", "down", "up"],
)
def test_the_previous_one_keeps_its_connections(moved: Moved, state: dict[str, int]) -> None:
    moved.state(OLD, **state)
    moved.tcp(OLD, "A")
    moved.tcp(OLD, "PA", b"data")
    moved.tcp(NEW, "S", who=client(moved.mode.family, 1))


def test_a_disabled_previous_one_gets_nothing(moved: Moved) -> None:
    moved.tcp(OLD, "A")
    moved.state(OLD, state=tables.DISABLED)
    moved.tcp(NEW, "A")
    moved.tcp(NEW, "A", who=client(moved.mode.family, 1))
    assert moved.balancer.reasons() == {}


def test_a_previous_one_that_is_no_more(moved: Moved) -> None:
    moved.tcp(OLD, "A")
    size = moved.balancer.infos["backends"].value_size
    moved.balancer.put("backends", plane.u32(OLD), bytes(size))
    moved.tcp(NEW, "A")
    moved.tcp(NEW, "A", who=client(moved.mode.family, 1))


def test_a_disabled_new_one(moved: Moved) -> None:
    """The ring still names it: until that changes, its own are dropped and the old ones stay."""
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    moved.state(NEW, state=tables.DISABLED)
    frame = bytes(moved.someone.to("tcp"))
    assert moved.balancer.run(frame).word == "DROP"
    assert moved.balancer.reasons() == {"DROP_NO_BACKEND": 1}
    moved.tcp(OLD, "A", who=client(moved.mode.family, 1))
    moved.move(NEXT, NEW)
    moved.tcp(NEXT, "A")


@pytest.mark.parametrize("table", ["flows", "flows_leaving"])
@pytest.mark.parametrize(
    "state", [{"state": tables.DISABLED}, {"health": tables.DOWN}], ids=["disabled", "down"]
)
def test_a_syn_whose_flow_s_backend_is_gone(
    moved: Moved, table: str, state: dict[str, int]
) -> None:
    """It begins elsewhere, and stays there when the backend is back."""
    gone = FlowEntry(NEXT, 5, plane.seconds(), OPEN)
    moved.balancer.put(table, moved.key(), gone.packed())
    moved.state(NEXT, **state)
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    moved.state(NEXT)
    moved.tcp(NEW, "PA", b"data")
    assert moved.sizes() == {**EMPTY, "flows": 1}


def test_a_clock_that_is_ahead(moved: Moved) -> None:
    """Another CPU's tick, or user space's finer clock: no silence of 136 years."""
    early = FlowEntry(NEXT, 5, plane.seconds() + 1, OPEN)
    moved.balancer.put("flows", moved.key(), early.packed())
    moved.tcp(NEXT, "A")
    moved.balancer.configure(udp_grace=60)
    moved.move(NEW + 10, OLD + 10, plane.seconds() + 1, service=2)
    moved.udp(OLD)


def test_both_are_disabled(moved: Moved) -> None:
    moved.state(OLD, state=tables.DISABLED)
    moved.state(NEW, state=tables.DISABLED)
    for flags in ("S", "A"):
        assert moved.balancer.run(bytes(moved.someone.to("tcp", flags=flags))).word == "DROP"
    assert moved.balancer.reasons() == {"DROP_NO_BACKEND": 2}


@pytest.mark.parametrize("table", ["flows", "flows_leaving"])
def test_silence_ends_a_flow(moved: Moved, table: str) -> None:
    """An entry that is older than idle_tcp is of another connection, long gone."""
    moved.balancer.configure(idle_tcp=100)
    now = plane.seconds()
    for age, to in ((95, NEXT), (105, OLD)):
        stale = FlowEntry(NEXT, 5, now - age, OPEN)
        moved.balancer.put(table, moved.key(), stale.packed())
        moved.tcp(to, "A")


def test_traffic_keeps_an_entry_young(moved: Moved) -> None:
    moved.balancer.put(
        "flows", moved.key(), FlowEntry(NEXT, 5, plane.seconds() - 50, OPEN).packed()
    )
    moved.tcp(NEXT, "A")
    entry = moved.entry("flows")
    assert entry
    assert abs(entry.seen - plane.seconds()) <= 2


def test_the_entry_names_the_slot(moved: Moved) -> None:
    """User space settles a slot when no entry names it any more."""
    moved.tcp(OLD, "A")
    entry = moved.entry("flows_leaving")
    assert entry
    slots = [tables.slot(OLD)] * tables.RING_SLOTS
    slots[entry.slot] = tables.slot(NEXT)
    moved.balancer.ring(SERVICE, b"".join(slots))
    moved.tcp(NEXT, "A")


def test_datagrams_within_the_grace_are_of_old_flows(moved: Moved) -> None:
    balancer = moved.balancer
    balancer.configure(udp_grace=60)
    moved.move(NEW + 10, OLD + 10, plane.seconds() - 30, service=2)
    moved.udp(OLD)
    entry = moved.entry("flows_leaving", service=2)
    assert entry
    assert (entry.backend, entry.state) == (OLD + 10, OPEN)
    assert moved.sizes() == {**EMPTY, "flows_leaving": 1}
    moved.move(NEW + 10, OLD + 10, plane.seconds() - 90, service=2)
    moved.udp(OLD)
    moved.udp(NEW, who=client(moved.mode.family, 1))
    assert moved.sizes() == {**EMPTY, "flows_leaving": 1}
    assert balancer.service_counters(2) == (0, 1, 2)


def test_datagrams_after_the_grace_are_of_new_flows(moved: Moved) -> None:
    moved.balancer.configure(udp_grace=60)
    moved.move(NEW + 10, OLD + 10, plane.seconds() - 61, service=2)
    for dummy in range(2):
        moved.udp(NEW)
    assert moved.sizes() == EMPTY


def test_datagrams_of_a_disabled_previous_one(moved: Moved) -> None:
    moved.balancer.configure(udp_grace=60)
    moved.move(NEW + 10, OLD + 10, plane.seconds(), service=2)
    moved.udp(OLD)
    state = {"state": tables.DISABLED}
    moved.balancer.backend(OLD + 10, 2, HOSTS[OLD], moved.mode.backends, **state)
    moved.udp(NEW)
    moved.udp(NEW, who=client(moved.mode.family, 1))


def test_silence_ends_a_datagram_flow(moved: Moved) -> None:
    moved.balancer.configure(udp_grace=60, idle_udp=30)
    moved.move(NEW + 10, OLD + 10, plane.seconds() - 300, service=2)
    for age, to in ((25, OLD), (35, NEW)):
        old = FlowEntry(OLD + 10, 5, plane.seconds() - age, OPEN)
        moved.balancer.put("flows_leaving", moved.key(service=2), old.packed())
        moved.udp(to)


def test_any_port_flows_have_their_port_in_the_key(moved: Moved) -> None:
    """Two connections of a client that differ only in the service's port."""
    vip = VIPS[moved.mode.family]
    moved.balancer.service(SERVICE, vip, 0, tables.TCP, moved.mode.forwarding)
    first = moved.someone.to("tcp", port=8001, flags="S")
    moved.goes_to(NEW, bytes(first))
    moved.goes_to(OLD, bytes(moved.someone.to("tcp", port=8002)))
    moved.goes_to(NEW, bytes(moved.someone.to("tcp", port=8001)))
    expected = tables.flow_key(moved.someone.address, 40000, 8001, SERVICE)
    assert moved.balancer.keys("flows") == [expected]


def test_counters_of_connections(moved: Moved) -> None:
    moved.tcp(NEW, "S")
    moved.tcp(NEW, "A")
    moved.tcp(OLD, "A", who=client(moved.mode.family, 1))
    header = {4: 40, 6: 60}[moved.mode.family]
    assert moved.balancer.backend_counters(NEW) == (2, 2 * header, 1)
    assert moved.balancer.backend_counters(OLD) == (1, header, 0)


def test_a_cut_packet_makes_no_entry(moved: Moved) -> None:
    frame = bytes(moved.someone.to("tcp", flags="S"))
    for size in range(14, len(frame)):
        assert moved.balancer.run(frame[:size]).word == "PASS"
    assert moved.sizes() == EMPTY
