# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the traffic tests: real sockets in namespaces of their own, plain TCP as the control."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dataplane
import lab
import pytest
from traffic import Path_

PATIENCE = 120
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session", autouse=True)
def privacy() -> None:
    if os.geteuid() != 0:
        pytest.exit("the traffic tests need root: namespaces, cgroups and bpf(2)")
    lab.private_mounts()
    lab.remove_what_dead_runs_left()


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C peer, compiled once."""
    binary = tmp_path_factory.mktemp("peer") / "peer"
    sources = sorted(str(path) for path in (HERE / "peer").glob("*.c"))
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["cc", *flags, *sources, "-o", str(binary)], check=True)
    return binary


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A test in which nothing moves any more fails; it does not hang."""

    def give_up(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"nothing happened for {PATIENCE} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    yield
    signal.alarm(0)


@pytest.fixture(scope="session", autouse=True)
def built(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All tests run on one copy of the object, whatever is rebuilt meanwhile."""
    assert dataplane.OBJECT.exists(), f"{dataplane.OBJECT} is not built: make -C bpf"
    copy = tmp_path_factory.mktemp("object") / "sockmap.bpf.o"
    shutil.copy(dataplane.OBJECT, copy)
    dataplane.OBJECT = copy


@pytest.fixture(scope="session")
def bpffs(privacy: None) -> Iterator[Path]:
    with dataplane.bpffs() as directory:
        yield directory


@pytest.fixture
def group() -> Iterator[Path]:
    """The cgroup whose sockets are accelerated."""
    with lab.cgroup("accelerated") as path:
        yield path


@pytest.fixture
def plane(bpffs: Path, group: Path) -> Iterator[dataplane.Accelerator]:
    with dataplane.accelerator(bpffs / "sockmap", group) as attached:
        yield attached
        # pytest shows it when the test failed
        print({name: number for name, number in attached.counters().items() if number})


@pytest.fixture
def host(plane: dataplane.Accelerator, group: Path) -> Iterator[lab.Namespace]:
    """One host: two peers talk over its loopback."""
    with lab.namespace(group) as namespace:
        yield namespace


@pytest.fixture
def wire(plane: dataplane.Accelerator, group: Path) -> Iterator[lab.Wire]:
    """Two namespaces of one host, joined by a veth pair."""
    with lab.wire(group) as made:
        yield made


@pytest.fixture(params=["plain", "accelerated"])
def path(request: pytest.FixtureRequest) -> Path_:
    return Path_(accelerated=request.param == "accelerated")
