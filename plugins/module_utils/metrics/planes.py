# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Where the data planes of this host are pinned: each in a directory of ours, known by its maps."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..resource.paths import BPFFS, HOME

ACCELERATOR = "counters"
BALANCER = "backend_counters"


def having(pinned: str) -> Iterator[tuple[str, str]]:
    """The name and the directory of each data plane whose maps include the one of this name."""
    home = os.path.join(BPFFS, HOME)
    try:
        names = sorted(os.listdir(home))
    except FileNotFoundError:
        return
    for name in names:
        if os.path.exists(os.path.join(home, name, "maps", pinned)):
            yield name, os.path.join(home, name)
