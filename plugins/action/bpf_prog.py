# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ``bpf_prog``: find the file, compile it if clang is to, send it over.

Targets then need no compiler, and nothing stays on them: what was sent goes with the task's
temporary directory, the same in check mode.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.object import (
    Source,
    compile_clang,
    content_of,
)


class ActionModule(ActionBase):
    """Sends what the module loads, unless it is on the target already."""

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        option = next((name for name in ("object", "source") if arguments.get(name)), "")
        is_sent = option and not boolean(arguments.get("remote_src", False), strict=False)
        if not is_sent or arguments.get("state") == "absent":
            result.update(self._module(arguments, task_vars))
            return result
        try:
            found = self._find_needle("files", arguments[option])
            result.update(self._send(option, found, arguments, task_vars))
        except (AnsibleError, Failure) as error:
            result.update(failed=True, msg=str(error))
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
        path: str,
        arguments: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Run the module with a copy of the file, compiled here if it is a source for clang."""
        with tempfile.TemporaryDirectory(prefix="ebpf-fleet-") as scratch:
            local = path
            if option == "source" and arguments.get("compiler", "clang") == "clang":
                local = self._compile(path, arguments, scratch)
                arguments["object"] = arguments.pop("source")
                option = "object"
                for name in ("compiler", "cflags", "sha256"):
                    arguments.pop(name, None)
            remote_dir = self._make_tmp_path()
            remote = self._connection._shell.join_path(remote_dir, os.path.basename(local))
            self._transfer_file(local, remote)
        self._fixup_perms2((remote_dir, remote))
        arguments.update({option: remote, "remote_src": True})
        result = self._module(arguments, task_vars)
        if "msg" in result:
            result["msg"] = result["msg"].replace(remote, path)
        return result

    def _compile(self, path: str, arguments: dict[str, Any], scratch: str) -> str:
        flags = arguments.get("cflags") or []
        source = Source(
            path,
            "clang",
            tuple([flags] if isinstance(flags, str) else flags),
            arguments.get("sha256") or "",
        )
        content_of(source)
        output = os.path.join(scratch, os.path.splitext(os.path.basename(path))[0] + ".o")
        compile_clang(source, output)
        return output
