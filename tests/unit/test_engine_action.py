# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's conversation with a host: what is asked, what is sent, what is confirmed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.plugin_utils import engine

PROGRAM = b"the engine"
DIGEST = hashlib.sha256(PROGRAM).hexdigest()
BLOBS = {
    "0" * 64: engine.Blob("/role/files/a.o", b"an object"),
    "1" * 64: engine.Blob("/role/files/b.o", b"another"),
}


class Connection:
    """A connection that counts how often it is made anew."""

    def __init__(self) -> None:
        self.resets = 0
        self._shell = SimpleNamespace(tmpdir="/tmp/task", join_path=lambda *parts: "/".join(parts))

    def reset(self) -> None:
        self.resets += 1


class Action(engine.EngineAction):
    """An action whose host answers as the test says."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []
        self.sent: dict[str, bytes] = {}
        self._connection = Connection()

    def _execute_module(self, **call: Any) -> dict[str, Any]:
        self.asked.append(call["module_args"])
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def _make_tmp_path(self, *_user: str) -> str:
        return "/tmp/task"

    def _transfer_data(self, remote_path: Any, data: Any) -> Any:
        self.sent[remote_path] = data

    def _fixup_perms2(self, *_paths: Any, **_options: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "engine.pyz"
    archive.write_bytes(PROGRAM)
    monkeypatch.setattr(engine, "ENGINE", archive)
    monkeypatch.setattr(engine, "_RETRY_SECONDS", 0.01)


def test_an_unchanged_host_is_asked_once_and_sent_nothing() -> None:
    action = Action({"changed": False, "invocation": {}})
    assert action._ask({"do": "deploy"}, BLOBS, {}) == {"changed": False}
    assert [asked["engine"] for asked in action.asked] == [DIGEST]
    assert action.sent == {}


def test_exactly_what_is_lacking_is_sent_once() -> None:
    lacks = [DIGEST, "1" * 64]
    action = Action({"lacks": lacks}, {"changed": True})
    assert action._ask({"do": "deploy"}, BLOBS, {}) == {"changed": True}
    assert action.sent == {f"/tmp/task/{DIGEST}": PROGRAM, f"/tmp/task/{'1' * 64}": b"another"}
    assert [asked.get("blobs") for asked in action.asked] == [None, "/tmp/task"]


def test_an_object_that_the_task_does_not_have_is_named() -> None:
    action = Action({"lacks": ["2" * 64]})
    with pytest.raises(Failure, match=f"lost {'2' * 64}.*deploy the release again"):
        action._ask({"do": "activate"}, {}, {})
    assert action.sent == {}


def test_a_host_that_keeps_nothing_is_not_asked_for_ever() -> None:
    action = Action({"lacks": [DIGEST]}, {"lacks": [DIGEST]})
    with pytest.raises(Failure, match="did not keep"):
        action._ask({"do": "deploy"}, {}, {})


def test_an_engine_that_was_not_built_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ENGINE", Path("/nowhere/engine.pyz"))
    with pytest.raises(Failure, match="make -C bpf"):
        Action()._ask({"do": "deploy"}, {}, {})


def test_an_object_is_called_by_its_name() -> None:
    said = f"load /tmp/x/{'1' * 64}: Permission denied\nobject '/store/{'1' * 64}'"
    result = Action({"failed": True, "msg": said})._ask({"do": "deploy"}, BLOBS, {})
    assert result["msg"] == "load /role/files/b.o: Permission denied\nobject '/role/files/b.o'"


WAITING = {"changed": True, "release": "r2", "confirm_by": 1_800_000_000}


def test_a_release_is_confirmed_over_a_new_connection() -> None:
    action = Action({"changed": True})
    result = action._confirm("web", WAITING, 5, {})
    assert result == {"changed": True, "release": "r2"}
    assert action._connection.resets == 1
    assert action.asked[0]["request"] == {"do": "confirm", "name": "web", "release": "r2"}


def test_a_connection_that_is_late_confirms_too() -> None:
    action = Action(AnsibleConnectionFailure("no route"), {"changed": True})
    assert "failed" not in action._confirm("web", WAITING, 5, {})
    assert action._connection.resets == 2


def test_a_host_that_cannot_be_reached_any_more_is_said_to_revert() -> None:
    action = Action(*[AnsibleConnectionFailure("no route")] * 100)
    result = action._confirm("web", WAITING, 0.05, {})
    assert result["failed"]
    assert "no new connection could be made to confirm release r2" in result["msg"]
    assert "reverts to what it ran before by itself at 2027-01-15 08:00:00 UTC" in result["msg"]
    assert result["confirm_by"] == WAITING["confirm_by"]


def test_a_confirmation_that_the_host_refuses_is_a_failure() -> None:
    action = Action({"failed": True, "msg": "release r2 is not active"})
    result = action._confirm("web", WAITING, 5, {})
    assert result["failed"]
    assert result["msg"].endswith("release r2 is not active")


def test_a_release_remembers_the_run_that_brought_it() -> None:
    run = engine.this_run()
    assert run.keys() == {"controller", "user", "playbook", "time"}
    assert run["controller"]
