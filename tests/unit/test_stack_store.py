# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store of releases and the engine's directory, in a directory of the test; no kernel takes part."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import journal
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import (
    confirm,
    engine_dir,
    intake,
    keep,
    manifest,
    move,
    store,
    unpack,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import Manifest
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.record import (
    APPLYING,
    CONFIRM,
    Fallback,
    Pending,
    Record,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.store import State

SHA = hashlib.sha256(b"an object").hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store, "ROOT", str(tmp_path / "root"))
    return tmp_path / "root"


def release(name: str, **more: Any) -> Manifest:
    document = {"layout": 1, "name": "web", "release": name, "resources": [], **more}
    return manifest.parse(document)


def record(of: Manifest, **more: Any) -> Record:
    return Record(of.digest, keep.now(), tuple(sorted(of.objects)), **more)


def pending(release: str | None, previous: str | None, phase: str = APPLYING) -> Pending:
    return Pending(release, previous, phase, "token", "boot")


def put(name: str, **more: Any) -> Manifest:
    made = release(name)
    keep.prepare("web")
    keep.put_release(made, record(made, **more))
    return made


def listing(root: Path) -> list[tuple[str, int, bytes]]:
    return [
        (
            str(path.relative_to(root)),
            path.lstat().st_mode,
            os.readlink(path).encode()
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else b"",
        )
        for path in sorted(root.rglob("*"))
    ]


# --- what is written is what is read


def test_a_stack_that_nobody_stored_is_empty(root: Path) -> None:
    assert store.load("web") == State("web")
    assert store.stacks() == []


def test_what_was_written_is_read(root: Path) -> None:
    first, second = put("r1", by={"user": "me"}), put("r2", predecessor="r1")
    keep.set_current("web", "r2")
    keep.set_pending("web", pending("r3", "r2"))
    fallback = Fallback("r1", "r2", "why", "6.1", "now")
    keep.set_fallback("web", fallback)
    state = store.load("web")
    assert (state.current, state.running, state.fallback) == ("r2", "r1", fallback)
    assert state.pending == pending("r3", "r2")
    assert list(state.releases) == ["r1", "r2"]
    assert state.record("r1").by == {"user": "me"}
    assert state.record("r2").predecessor == "r1"
    assert store.manifest(state, "r1") == first
    assert store.holds(state, second)
    assert not store.holds(state, release("r2", boot="never"))
    for clear in (keep.set_pending, keep.set_fallback, keep.set_current):
        clear("web", None)
    state = store.load("web")
    assert (state.current, state.pending, state.fallback) == (None, None, None)


def test_other_files_are_no_stacks(root: Path) -> None:
    put("r1")
    (root / "engine").mkdir()
    (root / "web.gone").mkdir()
    (root / "xdp_lb_backend.json").write_text("{}")
    (root / "a file").write_text("")
    assert store.stacks() == ["web"]


def test_releases_are_sorted_by_when_they_last_were_current(root: Path) -> None:
    for name in ("r1", "r2", "r3"):
        put(name)
    state = store.load("web")
    keep.put_record("web", "r1", keep.activated(state.record("r1"), "2999-01-01T00:00:00.000Z"))
    assert list(store.load("web").releases) == ["r2", "r3", "r1"]


def test_a_record_remembers_some_activations(root: Path) -> None:
    found = record(release("r1"), reverted="then")
    for number in range(50):
        found = keep.activated(found, str(number))
    assert found.activated == tuple(str(number) for number in range(30, 50))
    assert found.reverted is None


# --- undone, swept


def test_a_transaction_that_fails_leaves_the_store_as_it_was(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "object"
    source.write_bytes(b"an object")
    with pytest.raises(RuntimeError), journal.recording():
        change_all(source)
        raise RuntimeError
    assert not root.exists()
    put("r1")
    put("r2")
    keep.set_current("web", "r1")
    keep.set_fallback("web", Fallback("r1", "r2", "why", "6.1", "now"))
    (root / "web" / "objects" / ("0" * 64)).write_text("of no release")
    before = listing(root)
    with pytest.raises(RuntimeError), journal.recording():
        change_all(source)
        keep.drop("web", ["r1", "r2"])
        keep.drop_all("web")
        keep.sweep("web")
        raise RuntimeError
    assert listing(root) == before


def change_all(source: Path) -> None:
    keep.prepare("web")
    keep.set_pending("web", pending("r3", "r1"))
    keep.put_object("web", SHA, str(source))
    put("r3")
    keep.set_current("web", "r3")
    keep.set_fallback("web", None)
    keep.set_pending("web", None)
    keep.sweep("web")


def test_sweeping_takes_what_no_release_needs(root: Path) -> None:
    put("r1")
    before = listing(root)
    (root / "web" / "objects" / SHA).write_text("of no release")
    (root / "web" / "releases" / "r2").mkdir()
    (root / "web" / "releases" / "r2" / "record.json").write_text("{}")
    (root / "web" / "releases" / "r1" / "manifest.json.next").write_text("")
    (root / "web" / "current.next").symlink_to("nowhere")
    (root / "web.gone" / "releases").mkdir(parents=True)
    assert len(store.load("web").leftovers) == 5
    keep.sweep("web")
    assert listing(root) == before
    assert store.load("web").leftovers == ()


def test_an_object_may_be_needed_by_a_release_that_cannot_be_read(root: Path) -> None:
    put("r1")
    (root / "web" / "objects" / SHA).write_text("an object")
    (root / "web" / "releases" / "r1" / "record.json").write_text("{")
    assert store.load("web").leftovers == ()


@pytest.mark.parametrize(
    ("keep_count", "protected", "gone"),
    [
        (5, (), []),
        (3, (), ["r1"]),
        (1, (), ["r1", "r2", "r3"]),
        (0, ("r4",), ["r1", "r2", "r3"]),
        (2, ("r1",), ["r2", "r3"]),
        (1, ("r1", "r4"), ["r2", "r3"]),
        (1, ("r1", "r2", "r3", "r4"), []),
    ],
)
def test_surplus(keep_count: int, protected: tuple[str, ...], gone: list[str]) -> None:
    assert keep.surplus(["r1", "r2", "r3", "r4"], keep_count, protected) == gone


# --- where a change leads back to


@pytest.mark.parametrize(
    ("state", "back", "in_use"),
    [
        (State("web"), None, {None}),
        (State("web", True, "r1"), "r1", {"r1", None}),
        (State("web", True, "r1", pending("r2", "r1")), "r1", {"r1", "r2", None}),
        (State("web", True, "r2", pending("r2", "r1", CONFIRM)), "r1", {"r1", "r2", None}),
        (State("web", True, "r1", pending(None, None)), None, {"r1", None}),
        (
            State("web", True, "r2", None, Fallback("r1", "r2", "", "", "")),
            "r2",
            {"r1", "r2", None},
        ),
    ],
)
def test_the_way_back_is_the_last_that_was_confirmed(
    state: State, back: str | None, in_use: set[str | None]
) -> None:
    assert move.way_back(state) == back
    assert move.in_use(state) | {None} == in_use


def test_a_deadline_is_of_one_boot() -> None:
    assert confirm.deadline(0) == (None, None)
    due, by = confirm.deadline(60)
    waits = Pending("r2", "r1", CONFIRM, "token", keep.boot_id(), due, by)
    assert not confirm.is_over(waits)
    assert confirm.is_over(Pending("r2", "r1", CONFIRM, "token", "another boot", due, by))
    past, _by = confirm.deadline(-1)
    assert confirm.is_over(Pending("r2", "r1", CONFIRM, "token", keep.boot_id(), past, by))


# --- what a deployment brings


def needing(sha: str) -> dict[str, Any]:
    resource = {"bpf_prog": {"object": f"sha256:{sha}", "state": "present"}}
    return {"layout": 1, "name": "web", "release": "r1", "resources": [resource]}


def test_objects_are_looked_for_in_the_store_then_in_what_was_sent(
    root: Path, tmp_path: Path
) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    with intake.reading(needing(SHA), str(blobs)) as brought:
        assert brought.lacks == (SHA,)
    (blobs / SHA).write_bytes(b"half an ob")
    with intake.reading(needing(SHA), str(blobs)) as brought:
        assert brought.lacks == (SHA,)
    (blobs / SHA).write_bytes(b"an object")
    with intake.reading(needing(SHA), str(blobs)) as brought:
        assert brought.lacks == ()
        assert brought.resolve(SHA) == str(blobs / SHA)
        keep.prepare("web")
        keep.put_object("web", SHA, brought.files[SHA])
    with intake.reading(needing(SHA), str(blobs)) as brought:
        assert brought.files == {}
        assert brought.resolve(SHA) == str(root / "web" / "objects" / SHA)


def test_a_path_of_the_host_is_named_by_its_content(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.o"
    path.write_bytes(b"an object")
    document = needing(SHA)
    options = document["resources"][0]["bpf_prog"]
    options.update(object=str(path), remote_src=True)
    with intake.reading(document, "") as brought:
        assert brought.files == {SHA: str(path)}
        assert brought.manifest.objects == {SHA}
    options["sha256"] = "0" * 64
    with pytest.raises(Failure, match=f"{path} has sha256 {SHA}, expected"):
        with intake.reading(document, ""):
            pass
    options.update(object="mine.o", sha256=None)
    with pytest.raises(Failure, match="is not absolute"):
        with intake.reading(document, ""):
            pass


# --- the engine's directory


def pack(directory: Path, content: str) -> tuple[str, str]:
    path = directory / "engine.pyz"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("__main__.py", content)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_engine_is_unpacked_compiled_and_switched_to(root: Path, tmp_path: Path) -> None:
    old, new = (pack(tmp_path, f"print({number})") for number in (1, 2))
    pyz, sha = pack(tmp_path, "print('an engine')")
    with pytest.raises(Failure, match="came damaged"):
        unpack.install(pyz, old[1])
    unpack.install(pyz, sha)
    unpack.install(pyz, sha)
    assert engine_dir.current() == ""
    assert engine_dir.actions(sha) == [f"install engine {sha[:12]}"]
    (root / "engine" / new[1]).mkdir()
    engine_dir.switch(sha)
    assert engine_dir.actions(sha) == []
    assert engine_dir.program() == str(root / "engine" / sha)
    assert {path.name for path in (root / "engine").iterdir()} == {sha, "current"}
    assert list((root / "engine" / sha).rglob("*.pyc"))
    run = [sys.executable, "-I", str(root / "engine" / "current")]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert done.stdout == "an engine\n"
    with pytest.raises(Failure, match="is not installed"):
        engine_dir.switch("0" * 64)


def test_an_engine_in_use_stays(root: Path, tmp_path: Path) -> None:
    first, second = root / "engine" / "1", root / "engine" / "2"
    for path in (first, second):
        path.mkdir(parents=True)
    held = os.open(first, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    engine_dir.switch("2")
    assert first.is_dir()
    os.close(held)
    engine_dir.leave(last=False)
    assert second.is_dir()
    engine_dir.leave(last=True)
    assert not root.exists()


def test_a_switch_is_undone(root: Path) -> None:
    for name in ("1", "2"):
        (root / "engine" / name).mkdir(parents=True)
    engine_dir.switch("1")
    (root / "engine" / "2").mkdir()
    with pytest.raises(RuntimeError), journal.recording():
        engine_dir.switch("2")
        assert engine_dir.current() == "2"
        raise RuntimeError
    assert engine_dir.current() == "1"
    assert (root / "engine" / "2").is_dir()
