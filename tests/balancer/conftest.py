# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the balancer's tests: real clients, servers and packets in namespaces of their own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import balancer
import pytest
import servers
import topology
from scenario import MODES, Scenario, scenario
from servers import Server
from topology import Node, Topology

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import lock

PATIENCE = 60  # seconds for one test
CLONE_NEWNS = 0x00020000  # linux/sched.h
MS_REC_PRIVATE = 0x4000 | 0x40000  # linux/mount.h


@pytest.fixture(scope="session", autouse=True)
def bpffs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A mount namespace with a bpffs of its own: both vanish with this process."""
    if os.geteuid() != 0:
        pytest.exit("the balancer's tests need root: namespaces and bpf(2)")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "no private mount namespace")
    subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    # a lock of its own: other runs of the engine on this machine are no business of these hosts
    Path(lock.PATH).touch()
    own = tmp_path_factory.mktemp("lock") / "lock"
    own.touch()
    subprocess.run(["mount", "--bind", str(own), lock.PATH], check=True)


@pytest.fixture(scope="session", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All tests run on one copy of the objects, whatever is rebuilt meanwhile."""
    directory = tmp_path_factory.mktemp("objects")
    for path in (balancer.OBJECT, balancer.MAGLEV):
        assert path.exists(), f"{path} is not built: make -C bpf"
        shutil.copy(path, directory)
    balancer.OBJECT = directory / balancer.OBJECT.name
    balancer.MAGLEV = directory / balancer.MAGLEV.name


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A test in which nothing moves any more fails; it does not hang."""

    def give_up(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"nothing happened for {PATIENCE} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)


@pytest.fixture(scope="session")
def network() -> Iterator[Topology]:
    with topology.network() as made:
        yield made


@pytest.fixture(scope="session")
def backends(
    network: Topology, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, ...]]:
    """nginx and the other servers on every backend."""
    with servers.serving(network, tmp_path_factory.mktemp("backends")) as made:
        yield made


@pytest.fixture(params=MODES, ids=str)
def at_work(
    request: pytest.FixtureRequest, network: Topology, backends: tuple[Server, ...]
) -> Iterator[Scenario]:
    """A balancer at work, in one mode after the other."""
    with scenario(request.param, network) as made:
        yield made


COUNTERS = ("Tcp.OutRsts", "Tcp.InCsumErrors", "Udp.InCsumErrors", "Udp6InCsumErrors")


@contextmanager
def _quiet(nodes: tuple[Node, ...]) -> Iterator[None]:
    """None of the boxes resets a connection or receives a wrong checksum meanwhile."""

    def read() -> dict[str, int]:
        return {f"{node.name} {name}": node.counter(name) for node in nodes for name in COUNTERS}

    before = read()
    yield
    after = read()
    grown = {name: count - before[name] for name, count in after.items() if count > before[name]}
    assert not grown


@pytest.fixture
def no_resets(network: Topology) -> Callable[..., object]:
    """A context in which neither balancers nor backends reset connections or see wrong checksums.

    Clients may reset: wrk and curl hang up on answers that they do not wait for.
    """
    servers = (*network.balancers, *network.backends)
    return lambda nodes=servers: _quiet(nodes)


@pytest.fixture(autouse=True)
def forgotten_paths(network: Topology) -> Iterator[None]:
    """What the boxes learnt about path MTUs does not outlast a test."""
    yield
    for node in network.nodes:
        node.run("ip", "route", "flush", "cache")
        node.run("ip", "-6", "route", "flush", "cache")
