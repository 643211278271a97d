# SPDX-License-Identifier: GPL-3.0-or-later
"""In a private view everything has its name, and nothing that is done to names there is seen outside."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import snapshot
from resources import converge

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, maps, mounts, pins, view

CLONE_NEWNS = 0x00020000  # linux/sched.h


@pytest.fixture
def several(bpffs: Path, tmp_path: Path) -> Iterator[list[Path]]:
    """A second BPF file system, one that is mounted in the first, and the second seen at another place, too."""
    second, again = tmp_path / "second", tmp_path / "again"
    nested = bpffs / "nested"
    for path in (second, again, nested):
        path.mkdir()
    mounts.mount_bpffs(str(second), 0o711)
    mounts.mount_bpffs(str(nested), 0o700)
    mounts.mount_same(str(second), str(again))
    yield [bpffs, second, again, nested]
    for path in (again, second, nested):
        mounts.unmount(str(path))


@pytest.fixture
def filled(several: list[Path]) -> list[Path]:
    """With pins, a mode, directories of which one is empty, and a symbolic link."""
    with maps.create("array", 4, 4, 1, name="seen") as fd:
        for path in (several[0], several[1], several[3]):
            (path / "a" / "empty").mkdir(parents=True)
            pins.pin(fd, str(path / "a" / "map"))
        (several[1] / "a" / "map").chmod(0o640)
        (several[1] / "link").symlink_to("a/map")
    return several


def listing(paths: list[Path]) -> str:
    words = ["ls", "-lAR", "--time-style=+", "-I", "*.debug", *map(str, paths)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_it_has_all_names_and_gives_none_away(filled: list[Path]) -> None:
    before, table = listing(filled), Path(mounts.MOUNTINFO).read_text()
    here = Path.cwd()
    with view.private():
        assert listing(filled) == before
        assert Path.cwd() == here
        with pins.get(str(filled[3] / "a" / "map")) as fd:
            assert info.map_(fd).name == "seen"
            pins.pin(fd, str(filled[1] / "more"))
        assert (filled[2] / "more").exists()
        pins.remove(str(filled[0] / "a" / "map"))
        (filled[0] / "a" / "empty").rmdir()
    assert listing(filled) == before
    assert Path(mounts.MOUNTINFO).read_text() == table
    assert Path.cwd() == here


def test_it_is_left_by_any_exception(filled: list[Path]) -> None:
    namespace, before = os.readlink("/proc/self/ns/mnt"), listing(filled)
    with pytest.raises(KeyboardInterrupt), view.private():
        assert os.readlink("/proc/self/ns/mnt") != namespace
        raise KeyboardInterrupt
    assert os.readlink("/proc/self/ns/mnt") == namespace
    assert listing(filled) == before


def test_what_only_it_holds_is_gone(bpffs: Path, objects: dict[int, Path]) -> None:
    before = snapshot.take(stack="view")
    given = {"object": str(objects[1]), "pin_dir": "v", "pin_maps": "v/maps", "stack": "view"}
    with view.private():
        assert converge(("bpf_prog", given))
        loaded = snapshot.take(stack="view")
        assert loaded["programs"]
        assert loaded["maps"]
    assert snapshot.settled(before, lambda: snapshot.take(stack="view")) == []


def test_what_is_held_by_descriptor_can_be_pinned_on_the_host(bpffs: Path) -> None:
    with view.private(), maps.create("array", 4, 4, 1, name="kept") as made:
        pins.pin(made, "/sys/fs/bpf/kept")
        kept = pins.get("/sys/fs/bpf/kept")
    with kept:
        assert not Path("/sys/fs/bpf/kept").exists()
        pins.pin(kept, "/sys/fs/bpf/kept")
    with pins.get("/sys/fs/bpf/kept") as fd:
        assert info.map_(fd).name == "kept"


def test_directories_get_one_when_asked_for(bpffs: Path, tmp_path: Path) -> None:
    with view.private([str(tmp_path), "/sys/fs/bpf"]):
        assert pins.is_bpffs(str(tmp_path))
    assert not pins.is_bpffs(str(tmp_path))


def test_without_any_there_is_none(tmp_path: Path) -> None:
    """On a host without a BPF file system, and in a chroot."""
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(CLONE_NEWNS)
        mounts.unmount("/sys/fs/bpf")
        status = 1
        try:
            with view.private():
                status = int(pins.is_bpffs("/sys/fs/bpf"))
            assert not pins.is_bpffs("/sys/fs/bpf")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_chroot_is_returned_to(tmp_path: Path) -> None:
    for name in ("proc", "bpf", "work"):
        (tmp_path / name).mkdir()
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(CLONE_NEWNS)
        mounts.mount_same("/proc", str(tmp_path / "proc"))
        mounts.mount_bpffs(str(tmp_path / "bpf"), 0o700)
        os.chroot(tmp_path)
        os.chdir("/work")
        status = 1
        try:
            with maps.create("array", 4, 4, 1) as fd:
                pins.pin(fd, "/bpf/map")
            with view.private():
                pins.remove("/bpf/map")
                inside = os.listdir("/")
            same = os.path.exists("/bpf/map") and sorted(inside) == ["bpf", "proc", "work"]
            status = 0 if same and os.getcwd() == "/work" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_is_quick(bpffs: Path) -> None:
    """The pins of a busy host: a thousand."""
    (bpffs / "many").mkdir()
    with maps.create("array", 4, 4, 1) as fd:
        for number in range(1000):
            pins.pin(fd, f"/sys/fs/bpf/many/{number}")
    start = time.monotonic()
    with view.private():
        pass
    assert time.monotonic() - start < 10
