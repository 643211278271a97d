# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A replay that systemd ends, as it takes too long, says nothing about the release that it was at."""

from __future__ import annotations

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import journal
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import boot
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.store import State


def test_a_signal_is_no_reason_to_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def converge(_state: State, _goal: str, release: str, _reason: str) -> bool:
        tried.append(release)
        raise Failure("keeping the release: ended by SIGTERM") from journal.Stopped("SIGTERM")

    monkeypatch.setattr(boot, "_candidates", lambda _state, goal: [goal, "older"])
    monkeypatch.setattr(boot, "_converge", converge)
    with pytest.raises(Failure, match="ended by SIGTERM"):
        boot.settle(State("web", current="newer"), "newer")
    assert tried == ["newer"]
