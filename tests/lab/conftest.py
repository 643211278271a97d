# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab for the tests that want one, and the promise that nothing of it stays."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from witness import NONE, must, traces


@pytest.fixture(scope="session", autouse=True)
def _no_lab() -> None:
    if traces() != NONE:
        pytest.exit(f"a lab is up: take it down first (make lab-down). {traces()}", returncode=1)


@pytest.fixture
def _lab() -> Iterator[None]:
    """A lab that is up; afterwards it is down, without a trace."""
    try:
        must("up")
        yield
    finally:
        must("down")
    assert traces() == NONE
