# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine's promises, with a kind of resource that is only a dictionary."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils import front
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import engine, lock
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.engine import Change
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.paths import pin_path


@dataclass
class Shelf:
    """A kind whose kernel is a dictionary. ``loses`` forgets what was written."""

    books: dict[str, str] = field(default_factory=dict)
    loses: bool = False
    rehearsed: int = 0

    def observe(self, desired: Mapping[str, str]) -> dict[str, str]:
        return dict(self.books)

    def plan(self, desired: Mapping[str, str], observed: Mapping[str, str]) -> list[Change]:
        return [
            Change("put", title, {"text": observed.get(title)}, {"text": text}, "it is heavy")
            for title, text in desired.items()
            if observed.get(title) != text
        ]

    def rehearse(self, desired: Mapping[str, str], changes: Sequence[Change]) -> None:
        self.rehearsed += 1

    def apply(self, desired: Mapping[str, str], changes: Sequence[Change]) -> None:
        if not self.loses:
            self.books.update(desired)

    def report(self, desired: Mapping[str, str], observed: Mapping[str, str]) -> Mapping[str, Any]:
        return {"books": sorted(observed)}


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATH", str(tmp_path / "lock"))


def test_check_mode_rehearses_and_changes_nothing() -> None:
    shelf = Shelf()
    outcome = engine.converge(shelf, {"a": "1"}, check=True)
    assert outcome.changed
    assert outcome.actions == ["put a"]
    assert outcome.report == {"books": []}
    assert shelf.books == {}
    assert shelf.rehearsed == 1


def test_apply_then_again() -> None:
    shelf = Shelf()
    first = engine.converge(shelf, {"a": "1"}, check=False)
    second = engine.converge(shelf, {"a": "1"}, check=False)
    assert first.changed
    assert first.report == {"books": ["a"]}
    assert first.warnings == ["it is heavy"]
    assert first.diff == {"before": {"a": {"text": None}}, "after": {"a": {"text": "1"}}}
    assert not second.changed
    assert second.diff == {"before": {}, "after": {}}
    assert shelf.rehearsed == 0


def test_a_change_that_the_kernel_does_not_show_is_a_failure() -> None:
    with pytest.raises(Failure, match="does not show the result; still to do: put a"):
        engine.converge(Shelf(loses=True), {"a": "1"}, check=False)


def test_a_held_lock_is_named_with_its_holder() -> None:
    fd = os.open(lock.PATH, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.pwrite(fd, b"4711", 0)
    try:
        with pytest.raises(Failure, match=r"another run \(process 4711\) has held"):
            engine.converge(Shelf(), {"a": "1"}, check=False, lock_timeout=0)
    finally:
        os.close(fd)
    assert engine.converge(Shelf(), {"a": "1"}, check=False, lock_timeout=0).changed


@pytest.mark.parametrize("value", ["a\0b", "\ud800", {"\udc80": 1}, [{"a": ["x", "\0"]}]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(Failure, match=r"labels: .* holds a character that is no text"):
        front.require_text({"pin": "web/é☃", "labels": value})


@pytest.mark.parametrize(
    "path", ["", "/", "a//b", "a/", "../a", "/sys/fs/bpf/./a", "x" * 250, "/".join(["x" * 99] * 41)]
)
def test_what_is_no_pin_path_is_refused(path: str) -> None:
    with pytest.raises(Failure, match="is no pin path"):
        pin_path(path)


def test_a_relative_pin_path_lies_in_our_directory() -> None:
    assert pin_path("web/first") == "/sys/fs/bpf/ebpf_fleet/web/first"
    assert pin_path("/mnt/bpf/first") == "/mnt/bpf/first"
