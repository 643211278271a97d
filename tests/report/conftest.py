# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts, the page that report.yml made of them, and the browser that shows it."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import scene
from browser import Browser, chromium


@pytest.fixture(scope="session")
def hosts() -> Iterator[None]:
    """They are up, with traffic and drift. A second run waits, as it would take them away."""
    machine = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(machine, fcntl.LOCK_EX)
    try:
        scene.up()
        yield
    finally:
        scene.down()
        os.close(machine)


@pytest.fixture(scope="session")
def page(hosts: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as report.yml wrote it."""
    written = tmp_path_factory.mktemp("report") / "page.html"
    figures = json.dumps(scene.FIGURES)
    written.with_name("figures.json").write_text(figures, encoding="utf-8")
    scene.report(written)
    return written


@pytest.fixture(scope="session")
def running() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def browser(running: Browser, page: Path) -> Iterator[Browser]:
    """The page is open at the size of a desk's screen; afterwards nobody has complained."""
    running.open(page)
    try:
        yield running
        assert running.complaints == []
        assert set(running.requests) == {page.as_uri()}
    finally:
        running.close()
