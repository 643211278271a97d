# SPDX-License-Identifier: GPL-3.0-or-later
"""A file that belongs to a release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import config_file
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure


def converge(check: bool = False, **given: Any) -> list[str]:
    desired = config_file.desired({"state": "present", "mode": "0644", "content": None, **given})
    changes = config_file.plan(desired, config_file.observe(desired))
    if check:
        config_file.rehearse(desired, changes)
    else:
        config_file.apply(desired, changes)
        assert not config_file.plan(desired, config_file.observe(desired))
    return [change.action for change in changes]


def test_the_life_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "ebpf-fleet" / "a" / "b.json"
    assert converge(True, path=str(path), content="{}") == ["write file"]
    assert not (tmp_path / "ebpf-fleet").exists()
    assert converge(path=str(path), content="{}") == ["write file"]
    assert path.read_text() == "{}"
    assert path.stat().st_mode & 0o7777 == 0o644
    assert converge(path=str(path), content="{}") == []
    assert converge(path=str(path), content="{}", mode="0600") == ["set the mode of"]
    assert converge(path=str(path), content="[]", mode=0o600) == ["write file"]
    assert path.stat().st_mode & 0o7777 == 0o600
    assert converge(path=str(path), state="absent") == ["remove file"]
    assert converge(path=str(path), state="absent") == []
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_something_else_or_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "ebpf-fleet").mkdir()
    (tmp_path / "ebpf-fleet" / "other").touch()
    (tmp_path / "etc").mkdir()
    for name in ("ebpf-fleet/x/file", "etc/file"):
        converge(path=str(tmp_path / name), content="")
        converge(path=str(tmp_path / name), state="absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ebpf-fleet", "etc"]
    assert [path.name for path in (tmp_path / "ebpf-fleet").iterdir()] == ["other"]


def test_the_diff_shows_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    desired = config_file.desired({"path": str(path), "content": "new"})
    (change,) = config_file.plan(desired, config_file.observe(desired))
    assert change.before == {"content": "\N{REPLACEMENT CHARACTER}", "mode": "0644"}
    assert change.after == {"content": "new", "mode": "0644"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "a", "content": ""}, "write it from /"),
        ({"path": "/a/../b", "content": ""}, "write it from /"),
        ({"path": "/a"}, "has no content"),
        ({"path": "/a", "content": "", "mode": "rw"}, "mode 'rw' is none"),
        ({"path": "/a", "content": "", "mode": True}, "mode True is none"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Failure, match=message):
        config_file.desired(given)


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    for path, kind in ((tmp_path, "a directory"), (tmp_path / "link", "a symbolic link")):
        with pytest.raises(Failure, match=kind):
            config_file.observe(config_file.desired({"path": str(path), "content": ""}))


def test_a_file_cannot_be_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="directory"):
        converge(True, path=str(tmp_path / "file" / "below"), content="")
