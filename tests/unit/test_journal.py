# SPDX-License-Identifier: GPL-3.0-or-later
"""The undo log, with actions that only tell that they were called."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import files, journal
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Fd


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_is_kept_when_nothing_records() -> None:
    done: list[str] = []
    journal.undo("a", partial(done.append, "undone"))
    journal.at_commit("b", partial(done.append, "done"), 7)
    assert done == ["done"]
    assert not journal.records()
    assert journal.leaving() == frozenset()
    with Fd(os.open("/", os.O_RDONLY)) as fd:
        assert journal.hold(fd) is fd


def test_a_roll_back_goes_backwards_and_a_failure_does_not_stop_it() -> None:
    done: list[str] = []

    def fail() -> None:
        raise OSError(5, "no")

    with journal.recording() as log:
        journal.undo("first", partial(done.append, "first"))
        journal.undo("second", fail)
        journal.undo("third", partial(done.append, "third"))
        journal.at_commit("never", partial(done.append, "never"))
        assert log.roll_back() == ["second: [Errno 5] no"]
        assert log.roll_back() == []
    assert done == ["third", "first"]


def test_an_exception_rolls_back() -> None:
    done: list[str] = []
    with pytest.raises(KeyError), journal.recording():
        journal.undo("a", partial(done.append, "undone"))
        raise KeyError
    assert done == ["undone"]
    assert not journal.records()


def test_a_commit_does_what_waited_in_order_and_undoes_nothing() -> None:
    done: list[str] = []
    with journal.recording():
        journal.undo("a", partial(done.append, "undone"))
        journal.at_commit("b", partial(done.append, "one"))
        journal.at_commit("c", partial(done.append, "two"))
        assert done == []
    assert done == ["one", "two"]


def test_what_undoing_does_is_not_recorded() -> None:
    with journal.recording() as log:
        journal.undo("a", lambda: journal.undo("b", partial(pytest.fail, "undone twice")))
        assert log.roll_back() == []


def test_a_part_is_rolled_back_by_itself_or_with_the_whole() -> None:
    done: list[str] = []
    with journal.recording() as log:
        journal.undo("a", partial(done.append, "a"))
        with journal.recording():
            journal.undo("b", partial(done.append, "b"))
        with pytest.raises(OSError), journal.recording():
            journal.undo("c", partial(done.append, "c"))
            raise OSError
        assert done == ["c"]
        log.roll_back()
    assert done == ["c", "b", "a"]


def test_a_link_that_gets_another_name_stays() -> None:
    done: list[int] = []
    with journal.recording():
        for link in (1, 2, 3):
            journal.at_commit("detach", partial(done.append, link), link)
        assert journal.leaving() == {1, 2, 3}
        with journal.recording():
            assert journal.leaving() == {1, 2, 3}
            journal.stays(1)
        journal.stays(4)
        journal.at_commit("detach", partial(done.append, 4), 4)
        assert journal.leaving() == {2, 3}
    assert done == [2, 3]


def test_descriptors_last_as_long_as_the_record() -> None:
    before = _descriptors()
    with journal.recording() as log:
        with Fd(os.open("/", os.O_RDONLY)) as fd:
            held = journal.hold(fd)
            assert journal.hold(fd, 9).number == journal.hold(fd, 9).number
        os.fstat(held.number)
        with journal.recording():
            journal.hold(held)
        assert _descriptors() == before + 3
        log.roll_back()
        assert _descriptors() == before


def test_a_run_that_is_told_to_stop_does_so_after_a_record() -> None:
    done: list[str] = []
    with pytest.raises(journal.Stopped, match="SIGTERM"), journal.recording() as log:
        journal.undo("a", partial(done.append, "a"))
        log.stop("SIGTERM")
        with journal.recording():
            journal.undo("b", partial(done.append, "b"))
            pytest.fail("was not stopped")
    assert done == ["b", "a"]


def _tree(base: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.lstat().st_mode, path.read_text() if path.is_file() else "")
        for path in base.rglob("*")
    }


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    kept, link, tree = tmp_path / "kept", tmp_path / "link", tmp_path / "tree" / "in"
    files.make_directories(str(tree))
    files.write_atomic(str(kept), b"one", 0o600)
    files.write_atomic(str(tree / "file"), b"deep")
    files.symlink_atomic("kept", str(link))
    os.utime(kept, (1, 2))
    before = _tree(tmp_path)
    with journal.recording() as log:
        files.write_atomic(str(kept), b"two")
        files.symlink_atomic("elsewhere", str(link))
        files.set_mode(str(kept), 0o755)
        assert files.remove(str(link))
        assert not files.remove(str(link))
        files.make_directories(str(tmp_path / "x" / "y"))
        files.write_atomic(str(tmp_path / "x" / "y" / "new"), b"new")
        assert not files.remove_directory(str(tmp_path / "x"))
        assert files.remove_tree(str(tmp_path / "tree"))
        assert not tree.exists()
        assert log.roll_back() == []
    assert _tree(tmp_path) == before
    assert kept.stat().st_mtime == 2


def test_a_tree_goes_at_commit_with_what_a_killed_run_left_of_it(tmp_path: Path) -> None:
    for name in ("tree", files.doomed_path("tree")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with journal.recording():
        assert files.remove_tree(str(tmp_path / "tree"))
        assert not files.remove_tree(str(tmp_path / "none"))
        assert [path.name for path in tmp_path.iterdir()] == [files.doomed_path("tree")]
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError):
        files.write_atomic(str(tmp_path / "directory"), b"")
    assert [path.name for path in tmp_path.iterdir()] == ["directory"]
