# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ``bpf_prog``: find the file, compile it if clang is to, send it over.

Targets then need no compiler, and nothing stays on them: what was sent goes with the task's
temporary directory, the same in check mode.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.plugin_utils.objects import Prepared, prepared


class ActionModule(ActionBase):
    """Sends what the module loads, unless it is on the target already.

    TRANSFERS_FILES stays False: a directory is made on the target only when something is sent.
    """

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        option = next((name for name in ("object", "source") if arguments.get(name)), "")
        is_sent = not boolean(arguments.get("remote_src", False), strict=False)
        if (
            not is_sent
            or arguments.get("state") == "absent"
            or not isinstance(arguments.get(option), str)
        ):
            result.update(self._module(arguments, task_vars))
            return result
        find = partial(self._find_needle, "files")
        try:
            with prepared(option, arguments, find, self._loader) as file:
                result.update(self._send(option, file, arguments, task_vars))
        except AnsibleError as error:
            result.update(failed=True, msg=str(error))
        except Failure as failure:
            result.update(failed=True, msg=str(failure), **failure.details)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _module(
        self, arguments: dict[str, Any], task_vars: dict[str, Any] | None
    ) -> dict[str, Any]:
        module: dict[str, Any] = self._execute_module(
            module_name="ebpf.fleet.bpf_prog", module_args=arguments, task_vars=task_vars
        )
        return module

    def _send(
        self,
        option: str,
        file: Prepared,
        arguments: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Run the module with a copy of the file."""
        remote_dir = self._make_tmp_path()
        remote = self._connection._shell.join_path(remote_dir, file.name)
        self._transfer_file(file.local, remote)
        self._fixup_perms2((remote_dir, remote))
        del arguments[option]
        if file.is_compiled:
            for argument in ("compiler", "cflags", "sha256"):
                arguments.pop(argument, None)
        arguments.update({file.option: remote, "remote_src": True})
        result = self._module(arguments, task_vars)
        if "msg" in result:
            result["msg"] = result["msg"].replace(remote, file.found)
        return result
