# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The plan of a whole stack."""

from __future__ import annotations

from dataclasses import dataclass

from ..resource.engine import Change
from .manifest import Resource


@dataclass(frozen=True)
class Step:
    """What is to be done for one resource; ``removal``: it is taken away."""

    resource: Resource
    changes: tuple[Change, ...]
    removal: bool = False


@dataclass(frozen=True)
class Plan:
    """All that is to be done, in its order."""

    steps: tuple[Step, ...] = ()
