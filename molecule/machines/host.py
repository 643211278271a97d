# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of the host, and what becomes of their failures."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from problem import Problem


def output(*command: str, timeout: float = 60) -> str:
    """What a command prints. Raises Problem with what it complained about when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise Problem(f"{command[0]} is missing: run `make setup`") from error
    except subprocess.TimeoutExpired as error:
        raise Problem(f"{_words(command)}: no end after {timeout:.0f} seconds") from error
    if done.returncode:
        complaint = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Problem(f"{_words(command)}: {complaint or f'exit status {done.returncode}'}")
    return done.stdout


def _words(command: Sequence[str]) -> str:
    return " ".join(command)[:300]
