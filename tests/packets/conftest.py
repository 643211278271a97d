# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the packet tests: the load balancer's program, run on bytes, attached to nothing."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import network
import plane
import pytest
from nat import Nat
from packets import FAMILIES, Client, client

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import libbpf, xdp

Load = Callable[..., AbstractContextManager[plane.Balancer]]


@pytest.fixture(scope="session", autouse=True)
def wires() -> None:
    if os.geteuid() != 0:
        pytest.exit("the packet tests need root: namespaces and bpf(2)")
    network.enter_private_namespaces()
    network.set_up()


@pytest.fixture(scope="session")
def poison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plane.compile_poison(tmp_path_factory.mktemp("poison"))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All tests run on one copy of the object, whatever is rebuilt meanwhile."""
    assert plane.OBJECT.exists(), f"{plane.OBJECT} is not built: make -C bpf"
    copy = tmp_path_factory.mktemp("object") / plane.OBJECT.name
    shutil.copy(plane.OBJECT, copy)
    return copy


@pytest.fixture(scope="session")
def interface(wires: None, poison: Path) -> Iterator[int]:
    """in0, with a program: only then may packets claim to have come in on it."""
    index = socket.if_nametoindex("in0")
    with libbpf.open_object(str(poison)) as opened:
        opened.load()
        with opened.program_fd("admit") as admit, xdp.create_link(admit, index, "native"):
            yield index


@pytest.fixture(scope="session")
def load(built: Path, poison: Path, interface: int) -> Load:
    """Load another balancer."""

    def another(**sizes: int) -> AbstractContextManager[plane.Balancer]:
        return plane.load(built, poison, interface, sizes)

    return another


@pytest.fixture(scope="session")
def loaded(load: Load) -> Iterator[plane.Balancer]:
    with load() as made:
        yield made


@pytest.fixture
def balancer(loaded: plane.Balancer) -> plane.Balancer:
    """A balancer that is configured, with no service."""
    loaded.reset()
    loaded.configure()
    return loaded


@pytest.fixture(params=FAMILIES)
def nat(request: pytest.FixtureRequest, balancer: plane.Balancer) -> Nat:
    return Nat(balancer, request.param)


@pytest.fixture
def someone(nat: Nat) -> Client:
    return client(nat.family)
