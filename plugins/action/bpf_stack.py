# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ``bpf_stack``: a manifest out of the options, and the engine asked."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.options import BPF_STACK
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import (
    check_name,
    check_release,
)
from ansible_collections.ebpf.fleet.plugins.plugin_utils.engine import Blobs, EngineAction, this_run


class ActionModule(EngineAction):
    """Makes one release of a stack what the host runs, or takes the stack away."""

    def _converse(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        options = self._options(BPF_STACK)
        check_name(options["name"])
        if options["release"]:
            check_release(options["release"])
        blobs: Blobs = {}
        listed = {
            name: self._resources(name, options[name], blobs) for name in ("resources", "drain")
        }
        common = {"lock_timeout": options["lock_timeout"], "run": this_run()}
        if options["state"] == "absent":
            request = {"do": "remove", "name": options["name"], **listed, **common}
            return self._ask(request, blobs, task_vars)
        manifest = {
            "layout": 1,
            "name": options["name"],
            **listed,
            "prune": options["prune"],
            "boot": options["boot"],
        }
        if options["release"]:
            manifest["release"] = options["release"]
        timeout = options["confirm_timeout"]
        request = {"do": "deploy", "manifest": manifest, "confirm_timeout": timeout}
        request.update(keep=options["keep"], **common)
        if options["confirm"] == "later":
            request["confirm_all"] = True
        answer = self._ask(request, blobs, task_vars)
        if options["confirm"] == "now" and answer.get("confirm_by"):
            return self._confirm(options["name"], answer, timeout, task_vars)
        return answer
