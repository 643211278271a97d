# SPDX-License-Identifier: GPL-3.0-or-later
"""Network namespaces, cgroups and sockets of a test, all of them gone when the test process is."""

from __future__ import annotations

import array
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUN_PREFIX = "ebpf-fleet-test-"  # of whatever could outlive the process; its id follows
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC_PRIVATE = 0x4000 | 0x40000  # linux/mount.h


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Polls a condition gently; returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def private_mounts() -> None:
    """Gives this process its own mount namespace: what it mounts vanishes with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no private mount namespace: the suite needs root")


def cgroup2_root() -> Path:
    """Where cgroup2 is mounted on this host; raises LookupError."""
    for line in Path("/proc/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return Path(line.split()[1])
    raise LookupError("cgroup2 is not mounted")


def left_by_dead_runs(directory: Path) -> list[Path]:
    found = directory.glob(RUN_PREFIX + "*-*")
    return [path for path in found if not Path("/proc", path.name.split("-")[3]).exists()]


def remove_what_dead_runs_left() -> None:
    """Cgroups, and empty directories that were mount points: nothing else outlives a killed run."""
    for path in left_by_dead_runs(cgroup2_root()):
        remove_cgroup(path)
    for path in left_by_dead_runs(Path(tempfile.gettempdir())):
        path.rmdir()


def remove_cgroup(path: Path) -> None:
    procs = path / "cgroup.procs"
    if not wait_for(lambda: procs.read_text() == ""):
        raise RuntimeError(f"{path} still has processes: {procs.read_text().split()}")
    path.rmdir()


@contextmanager
def cgroup(name: str) -> Iterator[Path]:
    path = cgroup2_root() / f"{RUN_PREFIX}{os.getpid()}-{name}"
    path.mkdir()
    try:
        yield path
    finally:
        remove_cgroup(path)


@dataclass(frozen=True)
class Place:
    """One network namespace seen from one cgroup: where sockets and processes are made."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    cgroup: Path | None

    @property
    def netns(self) -> str:
        return f"/proc/{self.process.pid}/ns/net"

    def socket(
        self,
        family: int = socket.AF_INET,
        kind: int = socket.SOCK_STREAM,
        protocol: int = 0,
        timeout: float | None = 20.0,
    ) -> socket.socket:
        """A socket of this namespace and cgroup. Raises OSError with the kernel's errno."""
        self.control.send(json.dumps([int(family), int(kind), protocol]).encode())
        answer, ancillary, _flags, _address = self.control.recvmsg(64, socket.CMSG_SPACE(4))
        if not ancillary:
            raise OSError(int(answer), os.strerror(int(answer)))
        descriptor = array.array("i", ancillary[0][2][:4])[0]
        made = socket.socket(fileno=descriptor)
        made.settimeout(timeout)
        return made

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs something in this place."""
        join = f"echo 0 >{self.cgroup}/cgroup.procs && " if self.cgroup else ""
        shell = ["sh", "-c", join + 'exec "$@"', "sh", *arguments]
        return ["nsenter", f"--net={self.netns}", "--", *shell]

    def run(self, *arguments: str) -> str:
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{arguments}: {done.stderr.strip()}"
        return done.stdout


@contextmanager
def place(group: Path | None, netns: str) -> Iterator[Place]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = [str(theirs.fileno()), str(group or ""), netns]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(HERE / "broker.py"), *arguments],
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    try:
        if ours.recv(16) != b"ready":
            raise RuntimeError("the broker did not start")
        yield Place(process, ours, group)
    finally:
        ours.close()
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Namespace:
    """A network namespace with two places: inside the accelerated cgroup, and outside."""

    inside: Place
    outside: Place

    def interface_bytes(self, interface: str) -> int:
        """Bytes an interface received and transmitted so far: the witness no data plane can fool."""
        text = Path(f"/proc/{self.outside.process.pid}/net/dev").read_text()
        for line in text.splitlines():
            name, _colon, rest = line.partition(":")
            if name.strip() == interface:
                numbers = rest.split()
                return int(numbers[0]) + int(numbers[8])
        raise LookupError(interface)

    def netstat(self, name: str) -> int:
        """One counter of /proc/net/netstat, such as SyncookiesRecv."""
        lines = Path(f"/proc/{self.outside.process.pid}/net/netstat").read_text().splitlines()
        for heads, values in zip(lines[::2], lines[1::2]):
            if name in heads.split():
                return int(values.split()[heads.split().index(name)])
        raise LookupError(name)

    def ip(self, arguments: str) -> None:
        self.outside.run("ip", *arguments.split())

    def await_address(self, address: str) -> None:
        """Waits for the way to an IPv6 address of this host: the kernel makes it from a work queue."""
        show = ("ip", "-6", "route", "show", "table", "local")
        assert wait_for(lambda: f"local {address} " in self.outside.run(*show), 30), address

    def sysctl(self, name: str, value: object) -> None:
        path = "/proc/sys/" + name.replace(".", "/")
        self.outside.run("sh", "-c", f"echo '{value}' >{path}")

    def steer_packets(self, interface: str, cpus: str) -> None:
        """Receive packet steering: a hexadecimal CPU mask, "0" to turn it off."""
        path = f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"
        script = f"mount -t sysfs sysfs /sys && echo {cpus} >{path}"
        self.outside.run("unshare", "--mount", "sh", "-c", script)


@contextmanager
def namespace(group: Path) -> Iterator[Namespace]:
    with ExitStack() as stack:
        outside = stack.enter_context(place(None, ""))
        inside = stack.enter_context(place(group, outside.netns))
        made = Namespace(inside, outside)
        made.ip("link set lo up")
        made.outside.run("ip", "-6", "route", "replace", "local", "::1", "dev", "lo")
        yield made


@dataclass(frozen=True)
class Wire:
    """Two namespaces joined by a veth pair: `veth` on both sides, .1/::1 on the left, .2/::2 right."""

    left: Namespace
    right: Namespace
    addresses: dict[int, tuple[str, str]] = field(
        default_factory=lambda: {
            socket.AF_INET: ("10.77.0.1", "10.77.0.2"),
            socket.AF_INET6: ("fd77::1", "fd77::2"),
        }
    )

    def shape(self, rate: str) -> None:
        """Makes the way from left to right slow, so that data can overtake what is on the wire."""
        self.left.outside.run(
            *f"tc qdisc replace dev veth root tbf rate {rate} burst 2000 limit 4m".split()
        )

    def clog(self, packets: int) -> None:
        """Puts datagrams of 1400 bytes on the shaped wire: what is sent next waits behind them."""
        with self.left.outside.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            for dummy in range(packets):
                datagrams.sendto(bytes(1400), ("10.77.0.2", 9))


@contextmanager
def wire(group: Path) -> Iterator[Wire]:
    with namespace(group) as left, namespace(group) as right:
        peer = right.outside.process.pid
        left.ip(f"link add veth type veth peer name veth netns {peer}")
        for side, number in ((left, 1), (right, 2)):
            side.ip(f"addr add 10.77.0.{number}/24 dev veth")
            side.ip(f"addr add fd77::{number}/64 dev veth nodad")
            side.ip("link set veth up")
        for side, number in ((left, 1), (right, 2)):
            side.await_address(f"fd77::{number}")
        yield Wire(left, right)
