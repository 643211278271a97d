# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a boot runs on a server behind a load balancer: the module's own engine, on kept options."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ..resource.engine import converge
from ..resource.errors import Failure, from_os_error
from . import backend


def main(arguments: Sequence[str]) -> int:
    """``backend CONFIGURATION``: converge to the options of the module in it. The exit status."""
    if len(arguments) != 1:
        print("usage: ebpf-fleet-backend.pyz CONFIGURATION.json", file=sys.stderr)
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            options = {"state": "present", "unpack": "device", "mss": True, **json.load(file)}
        outcome = converge(backend, backend.desired(options), check=False)
    except (Failure, ValueError) as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(from_os_error(error, str(error.filename or arguments[0])), file=sys.stderr)
        return 1
    for action in outcome.actions:
        print(action, flush=True)
    return 0
