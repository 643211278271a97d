# SPDX-License-Identifier: GPL-3.0-or-later
"""Upgrade, draining and removal while 200 connections send the whole time: no error, no byte lost or moved."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dataplane
import lab
import pytest
from dataplane import Accelerator, bpftool
from lab import Namespace, Wire, wait_for
from traffic import (
    connection,
    connections,
    finish,
    listen,
    send_and_compare,
    started_peer,
    wire_bytes,
)

LIVE = 200
LENGTH = 1 << 20


@contextmanager
def live_connections(
    peer: Path, host: Namespace, accelerated: bool
) -> Iterator[subprocess.Popen[str]]:
    """Connections that send in both directions until told to stop; every byte is compared."""
    place = host.inside if accelerated else host.outside
    with connections(LIVE, place, place) as many:
        sockets = [end for made in many for end in (made.client, made.server)]
        words = [str(peer), "live", "1", *(str(each.fileno()) for each in sockets)]
        with started_peer(words, sockets) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            for made in many:
                made.close()  # ours; the peer has its own
            yield process


@pytest.fixture(params=["plain", "accelerated"])
def live(
    request: pytest.FixtureRequest, peer: Path, host: Namespace
) -> Iterator[subprocess.Popen[str]]:
    with live_connections(peer, host, request.param == "accelerated") as process:
        yield process


def end(process: subprocess.Popen[str]) -> None:
    """They stop, read what is left, and account for every byte."""
    words = finish(process).split()
    totals = dict(zip(words[::2], words[1::2]))
    assert int(totals["flows"]) == 2 * LIVE
    assert int(totals["rounds"]) > 10
    assert int(totals["sent"]) == int(totals["received"]) > LIVE * 10_000


def picked_up(plane: Accelerator, host: Namespace) -> bool:
    """Whether a new connection is accelerated, by the data plane's own counters of redirected bytes."""
    before = plane.counters()
    with connection(host.inside, host.inside, port=7777) as made:
        for sender, receiver in made.ends():
            send_and_compare(sender, receiver, os.urandom(LENGTH))
    after = plane.counters()
    return after["admitted"] - before["admitted"] == 2


def program_ids() -> set[int]:
    return {program["id"] for program in bpftool("prog", "show")}


def attached_program(plane: Accelerator) -> int:
    return int(
        bpftool("prog", "show", "pinned", plane.pins / "programs" / "sockmap_establish")["id"]
    )


def test_upgrade(live: subprocess.Popen[str], plane: Accelerator, host: Namespace) -> None:
    """Three upgrades: new connections get the new program, live ones keep theirs."""
    for dummy in range(3):
        old = attached_program(plane)
        plane.upgrade(dataplane.OBJECT)
        assert attached_program(plane) != old
        time.sleep(0.2)
        assert picked_up(plane, host)
    end(live)
    assert plane.is_empty(5)


def test_upgrade_hands_over_every_connection(
    plane: Accelerator, host: Namespace, peer: Path
) -> None:
    """Connections are made all the time while the programs are replaced ten times."""
    host.sysctl("net.ipv4.tcp_tw_reuse", 1)
    with listen(host.inside, "127.0.0.1", backlog=4096) as listener:
        words = [str(peer), "churn-server", str(listener.fileno()), "16"]
        with started_peer(words, [listener]) as serving:
            arguments = ["churn-client", "127.0.0.1", "7000", "20000", "4"]
            client = subprocess.Popen(
                host.inside.command(str(peer), *arguments), stdout=subprocess.PIPE, text=True
            )
            upgrades = 0
            while client.poll() is None and upgrades < 10:
                plane.upgrade(dataplane.OBJECT)
                upgrades += 1
                time.sleep(0.02)
            said, dummy = client.communicate(timeout=60)
            assert "wrong 0 broken 0" in said
            assert "wrong 0 broken 0" in finish(serving)
    assert upgrades >= 5


def test_stopping_leaves_live_connections_alone(
    live: subprocess.Popen[str], plane: Accelerator, host: Namespace
) -> None:
    """Draining in its patient form: nothing new is picked up, the map empties as connections end."""
    time.sleep(0.2)
    plane.stop()
    before = plane.counters()["established"]
    with connection(host.inside, host.inside, port=7777) as made:
        send_and_compare(made.client, made.server, os.urandom(LENGTH))
    assert plane.counters()["established"] == before
    time.sleep(0.3)
    end(live)
    assert plane.is_empty(5)
    plane.remove()


def test_draining_moves_live_connections_to_tcp(
    live: subprocess.Popen[str], plane: Accelerator, host: Namespace
) -> None:
    """Draining in its active form: connections that go on sending leave the map without losing a byte."""
    time.sleep(0.3)
    plane.set("draining", 1)
    assert not picked_up(plane, host)
    empty = plane.is_empty(20)
    left = plane.live_sockets()
    time.sleep(0.3)
    end(live)
    assert empty, f"{left} sockets were still in the map after 20 s"


def test_removal(live: subprocess.Popen[str], plane: Accelerator, host: Namespace) -> None:
    """Everything is detached and unpinned at once; what is live goes on, what is new is plain TCP."""
    time.sleep(0.3)
    plane.remove()
    time.sleep(0.3)
    with wire_bytes(host, "lo") as seen, connection(host.inside, host.inside, port=7777) as made:
        send_and_compare(made.client, made.server, os.urandom(LENGTH))
    assert seen[0] > LENGTH
    end(live)


def test_removal_after_draining(plane: Accelerator, host: Namespace, peer: Path) -> None:
    """The whole way out with traffic: drain, wait until the map is empty, detach, unpin.

    sockops stays attached until the map is empty: it is what takes live connections out of the map.
    """
    with live_connections(peer, host, accelerated=True) as live:
        time.sleep(0.3)
        plane.set("draining", 1)
        assert plane.is_empty(20)
        plane.remove()
        time.sleep(0.3)
        with wire_bytes(host, "lo") as seen:
            time.sleep(0.3)
        assert seen[0] > LENGTH, "the live connections are not on TCP"
        end(live)


def test_nothing_is_left_behind(bpffs: Path, group: Path) -> None:
    """Programs and maps live exactly as long as what refers to them."""
    before = program_ids()
    with dataplane.accelerator(bpffs / "brief", group) as plane:
        assert len(program_ids() - before) >= 2
        plane.remove()
        assert not plane.pins.exists()
    assert wait_for(lambda: program_ids() <= before)


def test_two_accelerators_on_one_host(bpffs: Path, plane: Accelerator, wire: Wire) -> None:
    """Each has its own cgroup and maps; a connection between the two groups stays on TCP and works."""
    with lab.cgroup("second") as other, dataplane.accelerator(bpffs / "second", other) as second:
        with lab.place(other, wire.right.outside.netns) as guest:
            with connection(wire.left.inside, guest, "10.77.0.2") as made:
                for sender, receiver in made.ends():
                    send_and_compare(sender, receiver, os.urandom(LENGTH))
            with wire_bytes(wire.right, "lo") as seen, connection(guest, guest) as made:
                send_and_compare(made.client, made.server, os.urandom(LENGTH))
            assert seen[0] < LENGTH // 10
            assert plane.counters()["no_peer"] == second.counters()["no_peer"] == 1
