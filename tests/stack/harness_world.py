# SPDX-License-Identifier: GPL-3.0-or-later
"""A host of one's own for a process: mounts, bpffs, store, network and cgroups, with real sockets to try it by.

Once entered it is never left: it vanishes with the process, and only the cgroups have to be removed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "traffic"))

import lab
from dataplane import OBJ_GET, bpf, bpftool
from traffic import Connection, connection, send_and_compare

__all__ = ["OBJ_GET", "bpf", "bpftool"]  # the witness, for those who come here for a host

HERE_TRAFFIC = Path(lab.__file__).resolve().parent
BPFFS = Path("/sys/fs/bpf")
STORE = Path("/var/lib/ebpf-fleet")
RUN = Path("/run/ebpf-fleet-test")
# Directories that the engine writes to, each an empty file system of this process's own.
OWN_DIRECTORIES = ("/var/lib", "/run", "/usr/local/sbin", "/etc/systemd/system")
CLONE_NEWNET = 0x40000000  # linux/sched.h
PORT = 7007
HOOKS = ("xdp", "tc ingress", "tc egress", "cgroup")  # of edge.bpf.c, in its order
VERSIONS = 4

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class World:
    """The host `left` and a neighbour `right` on its interface `veth`; two cgroups of the host."""

    wire: lab.Wire
    groups: tuple[Path, ...]
    places: tuple[lab.Place, ...]  # of the host's network, in the cgroup of the same number
    server: socket.socket
    client: socket.socket

    @property
    def host(self) -> lab.Namespace:
        return self.wire.left

    def packet(self) -> None:
        """One datagram from the neighbour is answered. Raises OSError when it is not."""
        text = os.urandom(8)
        self.client.sendto(text, ("10.77.0.1", PORT))
        received, sender = self.server.recvfrom(64)
        assert received == text
        self.server.sendto(text, sender)
        assert self.client.recv(64) == text

    def short_connection(self, group: int = 0) -> None:
        """A new connection inside the cgroup carries bytes both ways, unharmed."""
        place = self.places[group]
        with connection(place, place) as made:
            exchange(made)

    @contextmanager
    def long_connection(self, group: int = 0) -> Iterator[Connection]:
        """A connection that outlives what happens meanwhile; on a port of its own."""
        place = self.places[group]
        with connection(place, place, port=7900 + group) as made:
            exchange(made)
            yield made
            exchange(made)


def exchange(made: Connection, length: int = 20_000) -> None:
    """Bytes over a connection in both directions, compared."""
    for sender, receiver in made.ends():
        send_and_compare(sender, receiver, os.urandom(length))


def own_files() -> None:
    """Give this process a bpffs and the directories that the engine writes to, all empty."""
    lab.private_mounts()
    for directory in OWN_DIRECTORIES:
        if Path(directory).is_dir():
            _run("mount", "-t", "tmpfs", "-o", "mode=755", "own", directory)
    _run("umount", str(BPFFS), check=False)  # the tests' own, if there is one
    _run("mount", "-t", "bpf", "bpf", str(BPFFS))
    Path("/run/netns").mkdir()


@contextmanager
def entered(label: str) -> Iterator[World]:
    """Make a host and be on it, with this whole process."""
    own_files()
    with ExitStack() as stack:
        enter = stack.enter_context
        groups = tuple(enter(lab.cgroup(f"{label}-{number}")) for number in range(2))
        # The sockets stay in the cgroup for life, so the places end before the cgroups do.
        wire = enter(lab.wire(groups[0]))
        places = (
            wire.left.inside,
            enter(lab.place(groups[1], wire.left.outside.netns)),
        )
        with open(wire.left.outside.netns, "rb") as namespace:
            assert _libc.setns(namespace.fileno(), CLONE_NEWNET) == 0
        for end in (wire.left, wire.right):
            end.outside.run("ethtool", "-K", "veth", "tx", "off")
        server = enter(places[0].socket(kind=socket.SOCK_DGRAM, timeout=3))
        server.bind(("0.0.0.0", PORT))
        client = enter(wire.right.outside.socket(kind=socket.SOCK_DGRAM, timeout=3))
        yield World(wire, groups, places, server, client)


def wipe() -> None:
    """The host as it was made: no pins, no attachments, no store."""
    for path in BPFFS.iterdir():
        if path.is_dir():  # the kernel's own iterators stay
            _remove_pins(path)
    _run("tc", "qdisc", "del", "dev", "veth", "clsact", check=False)
    _run("ip", "link", "set", "dev", "veth", "xdp", "off", check=False)
    for path in (STORE, RUN, *Path("/usr/local/sbin").glob("*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    RUN.mkdir()


def _remove_pins(path: Path) -> None:
    if path.is_dir():
        for entry in path.iterdir():
            _remove_pins(entry)
        path.rmdir()
    else:
        with suppress(RuntimeError):  # a link detaches when it is asked to, else some time later
            bpftool("link", "detach", "pinned", path)
        path.unlink()


def _run(*words: str, check: bool = True) -> None:
    subprocess.run(words, check=check, capture_output=True)


def seen(maps: Path) -> dict[str, list[int]]:
    """What the programs of `edge` have counted: by hook, by version."""
    values = [entry["value"] for entry in bpftool("map", "dump", "pinned", maps)]
    counts = [int.from_bytes((int(byte, 16) for byte in value), sys.byteorder) for value in values]
    return {
        hook: counts[number * VERSIONS : (number + 1) * VERSIONS]
        for number, hook in enumerate(HOOKS)
    }


def versions_at_work(
    before: dict[str, list[int]], after: dict[str, list[int]]
) -> dict[str, set[int]]:
    """Which versions counted something in between, by hook."""
    return {
        hook: {
            version
            for version, (old, new) in enumerate(zip(before[hook], after[hook]))
            if new > old
        }
        for hook in before
    }


def redirected(counters: Path) -> int:
    """Bytes that the accelerator has redirected, summed over the CPUs; 0 while it has no counters."""
    if not counters.exists():
        return 0
    values = bpftool("map", "dump", "pinned", counters)[0].get("formatted", {}).get("values", [])
    return sum(int(cpu["value"]["redirected_bytes"]) for cpu in values)
