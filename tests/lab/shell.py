# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run commands, here and in network namespaces, and wait for things."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from cgroups import LabError

START_SECONDS = 120.0


def run(*command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if check and done.returncode:
        raise LabError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr.strip()}")
    return done


def inside(netns: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("nsenter", f"--net={netns}", *command, check=check)


def wait_for(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Raises LabError when the condition does not hold in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"gave up waiting for {what}; `lab.py down` cleans up")
        time.sleep(0.1)
