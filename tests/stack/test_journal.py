# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done under a journal can be taken back, exactly: the same objects at the same hooks and pins, the same entries.

Each case makes a beginning, then changes it under a journal. Rolled back, the beginning is there again, ids and all;
committed, what was asked for is there, and nothing else.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import snapshot
from journal_cases import CASES, GAPS, Host
from resources import converge

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import (
    info,
    journal,
    maps,
    pins,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.attachments import is_zombie


@pytest.fixture
def host(bpffs: Path, objects: dict[int, Path], group: Path, netns: str, tmp_path: Path) -> Host:
    (tmp_path / "mounted").mkdir()
    return Host(objects, group, netns, tmp_path)


@pytest.fixture
def tidy(host: Host) -> Any:
    """Cgroup and interface go with the test; a bpffs in the test's directory has to be unmounted."""
    yield
    converge(host.bpffs(state="absent"))


@pytest.mark.parametrize("case", CASES)
def test_roll_back(case: str, host: Host, tidy: None) -> None:
    beginning, steps = (each(host) for each in CASES[case])
    for resource in beginning:
        converge(resource)
    before = _quiet(host)
    with journal.recording() as log:
        for resource in steps:
            assert converge(resource), resource
        assert log.roll_back() == []
    assert snapshot.settled(before, host.snapshot) == []
    for resource in beginning:
        assert converge(resource) == []


@pytest.mark.parametrize("case", CASES)
def test_commit(case: str, host: Host, tidy: None) -> None:
    beginning, steps = (each(host) for each in CASES[case])
    for resource in beginning:
        converge(resource)
    with journal.recording() as log:
        for resource in steps:
            converge(resource)
        assert log.commit() == []
    now = _quiet(host)
    assert converge(steps[-1]) == []
    _every_link_is_attached_and_pinned(host)
    for path in Path("/sys/fs/bpf").rglob("*"):
        assert not path.name.endswith("__next")
    assert snapshot.settled(now, host.snapshot) == []


@pytest.mark.parametrize("link", [{}, {"link": "t/link"}])
@pytest.mark.parametrize("commits", [False, True])
def test_sockets_are_taken_out_at_commit(link: dict[str, str], commits: bool, host: Host) -> None:
    for resource in (host.programs(), host.sockmap(**link)):
        converge(resource)
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = stack.enter_context(socket.create_connection(listener.getsockname()))
        stack.enter_context(listener.accept()[0])
        fd = stack.enter_context(pins.get("/sys/fs/bpf/ebpf_fleet/t/maps/thing_sockets"))
        maps.put(fd, struct.pack("=I", 1), struct.pack("=Q", client.fileno()))
        before = _quiet(host)
        with journal.recording() as log:
            assert converge(host.sockmap(**link, state="absent", drain="force"))
            assert len(list(maps.keys(fd, 4))) == 1
            assert (log.commit() if commits else log.roll_back()) == []
        if commits:
            assert list(maps.keys(fd, 4)) == []
        else:
            assert len(list(maps.keys(fd, 4))) == 1
            assert snapshot.settled(before, host.snapshot) == []


@pytest.mark.parametrize("case", GAPS)
def test_roll_back_of_what_has_a_gap(case: str, host: Host) -> None:
    beginning, steps = (each(host) for each in GAPS[case])
    for resource in beginning:
        converge(resource)
    before = _quiet(host)
    with journal.recording() as log:
        for resource in steps:
            assert converge(resource)
        assert log.roll_back() == []
    found = snapshot.settled({**before, "links": _nameless(before)}, lambda: _anonymous(host))
    assert found == []


def _anonymous(host: Host) -> snapshot.Snapshot:
    now = host.snapshot()
    return {**now, "links": _nameless(now)}


def _nameless(found: snapshot.Snapshot) -> list[Any]:
    return [
        {key: value for key, value in link.items() if key != "id"}
        for link in found["links"].values()
    ]


def _quiet(host: Host) -> snapshot.Snapshot:
    """A look at what is there when the kernel has freed what was there before."""
    found = host.snapshot()
    while snapshot.differences(found, again := _later(host)):
        found = again
    return found


def _later(host: Host) -> snapshot.Snapshot:
    time.sleep(0.05)
    return host.snapshot()


def _every_link_is_attached_and_pinned(host: Host) -> None:
    for number, link in host.snapshot()["links"].items():
        assert link.get("pinned"), link
        with info.open_link(number) as fd:
            about = info.link(fd)
        assert not is_zombie(about), link
