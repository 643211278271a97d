# SPDX-License-Identifier: GPL-3.0-or-later
"""What failed, in few lines: said again at the end of a run, where one looks first."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

MESSAGE_LINES = 6  # of a failed test's message
TAIL_LINES = 30  # of a failed target's output, or of a failed part's that names no test


def of(files: list[Path], output: str) -> list[str]:
    """The failed tests of a part: of its JUnit files, or the targets that its output tells of.

    A part without either has its last lines of output.
    """
    return cases(files) or targets(output) or output.splitlines()[-TAIL_LINES:]


def cases(files: list[Path]) -> list[str]:
    """The failed test cases of JUnit files, each with the beginning of its message."""
    lines: list[str] = []
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            for bad in (*case.iter("failure"), *case.iter("error")):
                lines.append(f"{case.get('classname')}::{case.get('name')}")
                lines += [f"    {line}" for line in said(bad)]
    return lines


def said(bad: ElementTree.Element) -> list[str]:
    """The beginning of a failure's message, and of its text where that is short: a finding."""
    text = (bad.text or "").splitlines()
    return [
        *(bad.get("message") or "").splitlines()[:MESSAGE_LINES],
        *(text if len(text) <= MESSAGE_LINES else []),
    ]


def targets(output: str) -> list[str]:
    """The failed targets of integration_target.sh, each with the end of its output."""
    lines: list[str] = []
    before: list[str] = []
    for line in output.splitlines():
        if re.match(r"target \S+: failed in", line):
            lines += [line, *before[-TAIL_LINES:]]
        before = [*before, line] if line.startswith("    ") else []
    return lines
