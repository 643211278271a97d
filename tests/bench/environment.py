# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the benchmarks run: a cgroup for each variant, namespaces of our own, programs loaded.

Everything has a name beginning with PREFIX, lives in a private mount namespace or below a child
cgroup, and is removed on exit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PREFIX = "ebpfbench"
PRIVATE = "EBPF_FLEET_BENCH_PRIVATE"
ANY_PORT = "00 00 00 00 00 00"
ANY_ADDRESS = "00 " * 20


@dataclass(frozen=True)
class Variant:
    """A way to run the same work: its name and the cgroup that its processes are in."""

    name: str
    cgroup: Path


@dataclass(frozen=True)
class Path3:
    """Three namespaces in a row, client - proxy - backends, each hop a veth pair."""

    client: str
    proxy: str
    backend: str


PROXY_ADDRESS = "10.77.1.2"
BACKEND_ADDRESS = "10.77.2.2"


def call(*command: str) -> str:
    """Run a command; its output. Raises CalledProcessError, with stderr shown."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout


def start(variant: Variant, command: list[str], netns: str | None = None) -> subprocess.Popen[str]:
    """Start a command in the variant's cgroup and, if named, in a network namespace."""
    enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    join = f'echo $$ > {variant.cgroup}/cgroup.procs && exec "$@"'
    return subprocess.Popen(
        ["sh", "-c", join, "sh", *enter, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(variant: Variant, command: list[str], netns: str | None = None) -> str:
    """Run a command in the variant; its output. Raises RuntimeError with what it said."""
    process = start(variant, command, netns)
    out, error = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}: {error.strip()}")
    return out


def cpu_seconds(variant: Variant) -> float:
    """CPU time that the cgroup has used, user and system."""
    for line in (variant.cgroup / "cpu.stat").read_text(encoding="ascii").splitlines():
        key, value = line.split()
        if key == "usage_usec":
            return int(value) / 1e6
    raise RuntimeError(f"{variant.cgroup}/cpu.stat has no usage_usec")


def machine_seconds() -> float:
    """CPU time that the whole machine has used, all but idle."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(each) for each in first)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def become_private() -> None:
    """Start over in a mount namespace of our own, so that no mount outlives the benchmark."""
    if os.environ.get(PRIVATE):
        return
    os.environ[PRIVATE] = "1"
    os.execvp(
        "unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
    )


def cgroup2() -> Path:
    """Where the cgroup2 hierarchy is mounted."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        where, kind = line.split()[1:3]
        if kind == "cgroup2":
            return Path(where)
    raise RuntimeError("no cgroup2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")


@contextmanager
def variant(name: str) -> Iterator[Variant]:
    """A child cgroup for one variant."""
    where = cgroup2() / f"{PREFIX}-{name}-{os.getpid()}"
    where.mkdir()
    try:
        yield Variant(name, where)
    finally:
        where.rmdir()


@contextmanager
def bpffs(scratch: Path) -> Iterator[Path]:
    """A bpffs in our own mount namespace."""
    where = scratch / "bpf"
    where.mkdir()
    call("mount", "-t", "bpf", "bpf", str(where))
    try:
        yield where
    finally:
        call("umount", str(where))


@contextmanager
def accelerated(on: Variant, built: Path, pins: Path, policy: bool) -> Iterator[Path]:
    """The object loaded with bpftool and attached to the variant's cgroup; yields its map pins."""
    programs, maps = pins / f"{on.name}-programs", pins / f"{on.name}-maps"
    maps.mkdir()
    call("bpftool", "prog", "loadall", str(built), str(programs), "pinmaps", str(maps))
    redirect, sockets = programs / "sockmap_redirect", maps / "sockets"
    attach = ["pinned", str(redirect), "msg_verdict", "pinned", str(sockets)]
    call("bpftool", "prog", "attach", *attach)
    if policy:
        for name, key in (("policy_ports", ANY_PORT), ("policy_cidrs", ANY_ADDRESS)):
            entry = ["key", "hex", *key.split(), "value", "hex", "01"]
            call("bpftool", "map", "update", "pinned", str(maps / name), *entry)
    sockops = ["sock_ops", "pinned", str(programs / "sockmap_establish")]
    call("bpftool", "cgroup", "attach", str(on.cgroup), *sockops, "multi")
    try:
        yield maps
    finally:
        call("bpftool", "cgroup", "detach", str(on.cgroup), *sockops)
        call("bpftool", "prog", "detach", *attach)


def counters(maps: Path) -> dict[str, int]:
    """The data plane's counters, summed over the CPUs."""
    text = call("bpftool", "-j", "map", "dump", "pinned", str(maps / "counters"))
    total: dict[str, int] = {}
    for each in json.loads(text)[0]["formatted"]["values"]:
        for name, value in each["value"].items():
            total[name] = total.get(name, 0) + value
    return total


def link(left: str, right: str, subnet: str) -> None:
    """A veth pair between two namespaces, .1 on the left, .2 on the right."""
    names = (f"v{subnet[-1]}l", f"v{subnet[-1]}r")
    peer = ["peer", "name", names[1], "netns", right]
    call("ip", "-n", left, "link", "add", names[0], "type", "veth", *peer)
    for netns, name, host in ((left, names[0], 1), (right, names[1], 2)):
        call("ip", "-n", netns, "address", "add", f"{subnet}.{host}/24", "dev", name)
        call("ip", "-n", netns, "link", "set", name, "up")


@contextmanager
def namespaces() -> Iterator[Path3]:
    """client - proxy - backend, connected by veth."""
    path = Path3(*(f"{PREFIX}-{part}" for part in ("client", "proxy", "backend")))
    names = (path.client, path.proxy, path.backend)
    with ExitStack() as stack:
        for name in names:
            call("ip", "netns", "add", name)
            stack.callback(call, "ip", "netns", "delete", name)
            call("ip", "-n", name, "link", "set", "lo", "up")
        link(path.client, path.proxy, "10.77.1")
        link(path.proxy, path.backend, "10.77.2")
        yield path


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary directory, also on the way out of a failure."""
    with tempfile.TemporaryDirectory(prefix=PREFIX) as where:
        yield Path(where)


def stop(process: subprocess.Popen[str]) -> None:
    """End one process that we started and wait for it."""
    with suppress(ProcessLookupError):
        process.terminate()
    process.communicate()
