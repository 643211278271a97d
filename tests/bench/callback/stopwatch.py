# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When each task began and ended on each host, a line of JSON each, in the file that STOPWATCH names."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: stopwatch
type: notification
short_description: When each task began and ended on each host
description: A line of JSON each in the file that the variable STOPWATCH of the environment names.
"""


class CallbackModule(CallbackBase):
    """Begins when a worker is given the task, ends when its result is there."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "stopwatch"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[tuple[str, str], float] = {}
        self._file = Path(os.environ["STOPWATCH"])

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        self._began[host.name, task._uuid] = time.monotonic()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result, "ok")

    def v2_runner_on_failed(self, result: Any, **_how: Any) -> None:
        self._note(result, "failed")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note(result, "unreachable")

    def _note(self, result: Any, how: str) -> None:
        now = time.monotonic()
        host, task = result._host.name, result._task
        line = {
            "task": task.get_name(),
            "host": host,
            "began": self._began.pop((host, task._uuid), now),
            "ended": now,
            "how": how,
            "changed": bool(result._result.get("changed")),
            "actions": result._result.get("actions", []),
            "msg": str(result._result.get("msg", ""))[:2000],
        }
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
