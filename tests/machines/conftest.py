# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the checkout for each test, and the promise that no machine stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import checkout
import pytest
from checkout import ROOT, Checkout

sys.path.append(str(ROOT / "molecule"))


@pytest.fixture
def copy() -> Iterator[Checkout]:
    """A checkout that may be broken; the test fails when something of its machines stays."""
    made = checkout.copy()
    try:
        yield made
        left = checkout.traces()
    finally:
        down = [sys.executable, ROOT / "molecule/machines/machines.py", "down"]
        subprocess.run(down, env=made.environment(), check=True)
        shutil.rmtree(made.base)
    assert not left
