# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What came of each playbook that molecule ran: a line each in the file of EBPF_FLEET_RECORD."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible import context
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: notification
short_description: What came of each playbook that molecule ran
description:
  - A line of JSON for each playbook, in the file that the environment variable
    EBPF_FLEET_RECORD names.
  - What C(set_stats) says of a host is in it, too.
"""


class CallbackModule(CallbackBase):
    """Counts nothing itself: Ansible's own recap, per host, with what ran and how long."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began = time.time()
        self._playbook = Path()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._playbook = Path(playbook._file_name).resolve()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        # A scenario may run playbooks of its own, which are no step of molecule's.
        if self._playbook.parent != Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).resolve():
            return
        line = {
            "scenario": os.environ["MOLECULE_SCENARIO_NAME"],
            "playbook": self._playbook.stem,
            "check": bool(context.CLIARGS.get("check")),
            "began": self._began,
            "ended": time.time(),
            "hosts": {
                host: {
                    "ran": stats.ok.get(host, 0),
                    "changed": stats.changed.get(host, 0),
                    "failed": stats.failures.get(host, 0) + stats.dark.get(host, 0),
                }
                for host in stats.processed
            },
            "said": stats.custom,
        }
        with Path(os.environ["EBPF_FLEET_RECORD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
