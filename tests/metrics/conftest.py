# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One host with an accelerator, a balancer and metrics, for as long as the tests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import world


@pytest.fixture(scope="session")
def host() -> Iterator[None]:
    """It is up, and everything is declared on it."""
    try:
        world.up()
        yield
    finally:
        world.down()
