# SPDX-License-Identifier: GPL-3.0-or-later
"""A module run as a task runs it, in a process of its own: arguments in, result out."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ansible.module_utils import basic

Result = dict[str, Any]
PACKAGE = "ansible_collections.ebpf.fleet.plugins.modules"


def module(
    name: str,
    options: dict[str, Any],
    check: bool = False,
    before: Callable[[], None] | None = None,
) -> Result:
    """The module's result. ``before`` is called in its process first, to take something away."""
    source = importlib.import_module(f"{PACKAGE}.{name}")
    told = {
        **options,
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": "/tmp",
    }
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.closerange(3, 1024)
        basic._ANSIBLE_ARGS = json.dumps({"ANSIBLE_MODULE_ARGS": told}).encode()
        basic._ANSIBLE_PROFILE = "legacy"
        _become(source, before)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        said = answer.read().decode("utf-8", "replace")
    os.waitpid(child, 0)
    try:
        result: Result = json.loads(said)
    except ValueError:
        return {"failed": True, "msg": f"the module's answer is no JSON: {said}"}
    return result


def _become(source: Any, before: Callable[[], None] | None) -> None:
    """Run the module, and end the process."""
    status = 0
    try:
        if before:
            before()
        source.main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001 (the parent sees that it is no JSON)
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        os._exit(status)
