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
        sys.stderr.write("usage: ebpf-fleet-backend.pyz CONFIGURATION.json\n")
        return 2
    try:
        with open(arguments[0], encoding="utf-8") as file:
            options = {"state": "present", "unpack": "device", "mss": True, **json.load(file)}
        outcome = converge(backend, backend.desired(options), check=False)
    except (Failure, ValueError) as error:
        sys.stderr.write(f"{arguments[0]}: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"{from_os_error(error, str(error.filename or arguments[0]))}\n")
        return 1
    for action in outcome.actions:
        sys.stdout.write(action + "\n")
    return 0
