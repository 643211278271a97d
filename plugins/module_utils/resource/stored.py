# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The releases that a host stores, told by the engine that it keeps beside them.

The engine is not imported as part of the collection: every module that asks would carry all of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any

from .errors import Failure

ENGINE = "/var/lib/ebpf-fleet/engine/current"
_PACKAGE = "ebpf_fleet"


def stacks() -> list[Mapping[str, Any]]:
    """Each stack of the host with its releases and its condition. Raises Failure.

    A host without an engine has none.
    """
    if not os.path.isdir(ENGINE):
        return []
    sys.path.insert(0, os.path.realpath(ENGINE))
    try:
        engine = importlib.import_module(f"{_PACKAGE}.stack.main")
        errors = importlib.import_module(f"{_PACKAGE}.resource.errors")
    except ImportError as error:
        raise Failure(
            f"the engine in {ENGINE} is damaged ({error}); remove {os.path.realpath(ENGINE)}, and "
            "deploy a stack with ebpf.fleet.bpf_stack, which installs it again"
        ) from error
    finally:
        del sys.path[0]
    try:
        found: list[Mapping[str, Any]] = engine.handle({"do": "status"}, True)["stacks"]
    except errors.Failure as failure:
        raise Failure(str(failure), **failure.details) from failure
    return found
