# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams that make the data plane change its mind: backpressure, bursts, every mixture of reads and writes.

The peer's letters are habits; see peer/stream.c. Writer: s small, m medium, l large, v vector, c MSG_MORE, f sendfile,
z zero-copy, n non-blocking, p pauses. Reader: g greedy, m medium, t tiny, s slow, b bursts, k peeks, i asks FIONREAD,
e polls, v vector, l low-water mark. Seeds are fixed; what is random otherwise is the scheduler.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from lab import Namespace, Wire
from traffic import Connection, Path_, connection, connections, run_peer

KILOBYTE = 1 << 10
MEGABYTE = 1 << 20

# (name, writer and reader and bytes one way, the same the other way)
MIXTURES = [
    ("slow-reader", ("sml", "gsb", 8 * MEGABYTE), ("s", "g", 64 * KILOBYTE)),
    ("bursty-reader", ("slp", "gb", 24 * MEGABYTE), ("slp", "gb", 24 * MEGABYTE)),
    ("bulk-one-way-talk-the-other", ("l", "gb", 64 * MEGABYTE), ("sp", "gt", 256 * KILOBYTE)),
    ("small-bulk-one-way", ("s", "gbm", 8 * MEGABYTE), ("sp", "g", 128 * KILOBYTE)),
    ("small-bulk-both-ways", ("sssssp", "gbe", MEGABYTE), ("sssssp", "gbe", MEGABYTE)),
    ("peeking-reader", ("smlp", "kgb", 12 * MEGABYTE), ("sp", "kg", 256 * KILOBYTE)),
    ("asking-reader", ("smlp", "igb", 12 * MEGABYTE), ("sm", "ig", MEGABYTE)),
    ("polling-reader", ("nlp", "eeeeb", 12 * MEGABYTE), ("nnp", "e", MEGABYTE)),
    ("tiny-reads", ("sml", "tgb", 4 * MEGABYTE), ("smlp", "tg", 2 * MEGABYTE)),
    ("vectors-and-more", ("vcp", "vgb", 8 * MEGABYTE), ("vc", "vb", 4 * MEGABYTE)),
    ("files", ("fsp", "gb", 24 * MEGABYTE), ("fs", "gm", 12 * MEGABYTE)),
    ("zero-copy", ("zsp", "gb", 24 * MEGABYTE), ("zs", "gm", 12 * MEGABYTE)),
    (
        "everything",
        ("smlvcfznp", "gmtsbkiev", 8 * MEGABYTE),
        ("smlvcfznp", "gmtsbkiev", 8 * MEGABYTE),
    ),
]


MODES = pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])


def stress(
    peer: Path, path: Path_, made: Connection, mixture: tuple, seed: int, blocking: bool
) -> None:
    _name, there, back = mixture
    client, server = made.client, made.server
    directions = []
    for number, ((source, target), (writer, reader, length)) in enumerate(
        zip(((client, server), (server, client)), (there, back))
    ):
        fields = (source.fileno(), target.fileno(), seed * 2 + number, length, writer, reader)
        directions.append(",".join(map(str, fields)))
    ends = [client, server]
    said = run_peer(peer, "stream", 30, *directions, sockets=ends, blocking=blocking)
    check_interruptions(said, path)


def check_interruptions(said: str, path: Path_) -> None:
    """A blocking reader whose socket another thread writes to may get EAGAIN: a documented limit, but never on TCP."""
    if not path.accelerated:
        assert said.count("interrupted 0") == said.count("interrupted"), said


@MODES
@pytest.mark.parametrize("mixture", MIXTURES, ids=[mixture[0] for mixture in MIXTURES])
def test_loopback(host: Namespace, path: Path_, peer: Path, mixture: tuple, blocking: bool) -> None:
    place = path.place(host)
    with connection(place, place) as made:
        stress(peer, path, made, mixture, 1, blocking)


@MODES
def test_small_receive_buffers(host: Namespace, path: Path_, peer: Path, blocking: bool) -> None:
    """Small fixed buffers: both queues are full most of the time."""
    place = path.place(host)
    mixture = ("", ("smlp", "gggmb", 2 * MEGABYTE), ("smp", "gm", MEGABYTE))
    for seed in range(3, 6):
        with connection(place, place) as made:
            for each in (made.client, made.server):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
            stress(peer, path, made, mixture, seed, blocking)


@MODES
def test_several_streams_at_once_between_namespaces(
    wire: Wire, path: Path_, peer: Path, blocking: bool
) -> None:
    """Many streams at once on a steered veth: the scheduler mixes what a single stream never sees."""
    wire.right.steer_packets("veth", "3")
    wire.left.steer_packets("veth", "3")
    client, server = path.place(wire.left), path.place(wire.right)
    with connections(8, client, server, "10.77.0.2") as many:
        directions = []
        sockets = []
        for number, made in enumerate(many):
            sockets += [made.client, made.server]
            near, far = made.client.fileno(), made.server.fileno()
            habits = ("smlvcfnp", "gmtbkev")
            directions.append(
                f"{near},{far},{number * 2 + 100},{3 * MEGABYTE},{habits[0]},{habits[1]}"
            )
            directions.append(
                f"{far},{near},{number * 2 + 101},{3 * MEGABYTE},{habits[0]},{habits[1]}"
            )
        said = run_peer(peer, "stream", 40, *directions, sockets=sockets, blocking=blocking)
        check_interruptions(said, path)
