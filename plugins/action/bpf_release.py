# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ``bpf_release``: the engine asked to change the release that runs."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.options import BPF_RELEASE
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import check_name
from ansible_collections.ebpf.fleet.plugins.plugin_utils.engine import EngineAction, this_run

_REQUESTS = {"active": "activate", "withdrawn": "withdraw", "confirmed": "confirm"}


class ActionModule(EngineAction):
    """Changes which of the stored releases runs."""

    def _converse(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        options = self._options(BPF_RELEASE)
        check_name(options["name"])
        state = options["state"]
        given = {name: options[name] for name in ("release", "keep") if options[name] is not None}
        request = {
            "do": _REQUESTS.get(state) or ("forget" if options["release"] else "remove"),
            "name": options["name"],
            "lock_timeout": options["lock_timeout"],
            "run": this_run(),
            **given,
        }
        if state == "confirmed":
            self._connection.reset()  # what confirms is that a new connection can be made
        answer = self._ask(request, {}, task_vars)
        return {**answer, "active": answer["release"]} if "release" in answer else answer
