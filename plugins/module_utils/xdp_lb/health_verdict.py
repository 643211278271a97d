# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""From single checks to a backend's health: so many in a row say that it changed."""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN, UP, DOWN = "unknown", "up", "down"


@dataclass(frozen=True)
class Verdict:
    """What is thought of a backend. ``streak`` counts equal checks, those that failed below 0."""

    health: str
    streak: int = 0
    reason: str = ""  # of the last check that failed


def judge(before: Verdict, failure: str, rise: int, fall: int) -> Verdict:
    """The verdict after one more check; ``failure`` is "" when it succeeded.

    Health stays what it was until ``rise`` checks in a row have succeeded or ``fall`` have failed.
    """
    if failure:
        streak = min(before.streak, 0) - 1
        return Verdict(DOWN if streak <= -fall else before.health, max(streak, -fall), failure)
    streak = max(before.streak, 0) + 1
    return Verdict(UP if streak >= rise else before.health, min(streak, rise), before.reason)
