# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of ``bpf_prog``: find the file, compile it if clang is to, send it over.

Targets then need no compiler, and nothing stays on them: what was sent goes with the task's
temporary directory, the same in check mode.
"""

from __future__ import annotations

import os
import shutil
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
        try:
            found = self._find_needle("files", arguments[option])
            result.update(self._send(option, found, arguments, task_vars))
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
        path: str,
        arguments: dict[str, Any],
        task_vars: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Run the module with a copy of the file, compiled here if it is a source for clang."""
        readable = self._loader.get_real_file(path)  # decrypted, if the file is in a vault
        local, name = readable, os.path.basename(path)
        try:
            with tempfile.TemporaryDirectory(prefix="ebpf-fleet-") as scratch:
                if option == "source" and (arguments.get("compiler") or "clang") == "clang":
                    local = self._compile(path, readable, arguments, scratch)
                    arguments["object"] = arguments.pop("source")
                    option = "object"
                    name = os.path.basename(local)
                    for argument in ("compiler", "cflags", "sha256"):
                        arguments.pop(argument, None)
                remote_dir = self._make_tmp_path()
                remote = self._connection._shell.join_path(remote_dir, name)
                self._transfer_file(local, remote)
        finally:
            self._loader.cleanup_tmp_file(readable)
        self._fixup_perms2((remote_dir, remote))
        arguments.update({option: remote, "remote_src": True})
        result = self._module(arguments, task_vars)
        if "msg" in result:
            result["msg"] = result["msg"].replace(remote, path)
        return result

    def _compile(self, path: str, local: str, arguments: dict[str, Any], scratch: str) -> str:
        """Compile the source at ``path``, whose decrypted content is at ``local``."""
        flags = arguments.get("cflags") or []
        flags = flags.split(",") if isinstance(flags, str) else [str(flag) for flag in flags]
        if local != path:
            # The name is part of the object, and headers are looked for beside the original.
            directory = os.path.dirname(path)
            flags += [f"-ffile-prefix-map={directory}=.", "-iquote", directory]
            local = shutil.copy(local, os.path.join(scratch, os.path.basename(path)))
        source = Source(local, "clang", tuple(flags), str(arguments.get("sha256") or ""))
        content_of(source)
        output = os.path.join(scratch, os.path.splitext(os.path.basename(path))[0] + ".o")
        compile_clang(source, output)
        return output
