# SPDX-License-Identifier: GPL-3.0-or-later
"""How many tests a part ran, read from what its tools wrote."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Count:
    """Tests by outcome; prints as the closing line of a run."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped
        )

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def strict(count: Count, succeeded: bool) -> Count:
    """A failed command is a failure whatever it counted; so is a run without any test."""
    if count.failed or (succeeded and count.passed):
        return count
    return count + Count(failed=1)


def one(succeeded: bool) -> Count:
    """A check that is a single yes or no."""
    return Count(passed=1) if succeeded else Count(failed=1)


def junit(files: list[Path], succeeded: bool, *, skips: bool = True) -> Count:
    """Test cases of JUnit files; `skips=False` leaves out what was skipped."""
    count = Count()
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            if case.find("failure") is not None or case.find("error") is not None:
                count += Count(failed=1)
            elif case.find("skipped") is None:
                count += Count(passed=1)
            elif skips:
                count += Count(skipped=1)
    return strict(count, succeeded)


def integration(output: str, succeeded: bool) -> Count:
    """The targets that integration_target.sh reports."""
    words = re.findall(r"^target \S+: (passed|failed) in", output, re.MULTILINE)
    return strict(Count(words.count("passed"), words.count("failed")), succeeded)
