# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's Chromium without a window, driven by Playwright, and what the page in it asks for and complains of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, sync_playwright

PROGRAM = "/usr/bin/chromium-headless-shell"
PATIENCE = 120_000  # milliseconds for one step, on a machine that has other things to do


@dataclass
class Browser:
    """One page at a time. ``requests`` are the addresses that it asked for."""

    chromium: Chromium
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    page: Page | None = None

    def open(
        self,
        file: Path,
        size: tuple[int, int] = (1280, 900),
        dark: bool = False,
        medium: str = "screen",
        scripts: bool = True,
    ) -> None:
        """A new page of so many CSS pixels, without a network; the one before is closed."""
        self.close()
        context = self.chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
            is_mobile=size[0] < 600,
            offline=True,
        )
        context.set_default_timeout(PATIENCE)
        self.page = context.new_page()
        self.page.emulate_media(media="print" if medium == "print" else "screen")
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(file.as_uri())

    def close(self) -> None:
        if self.page:
            self.page.context.close()
        self.page = None
        self.requests.clear()
        self.complaints.clear()

    @property
    def shown(self) -> Page:
        assert self.page, "nothing is open"
        return self.page

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        return self.shown.evaluate(expression)

    def click(self, selector: str) -> None:
        self.shown.click(selector)

    def fill(self, selector: str, text: str) -> None:
        """Write into a field, in place of what is there."""
        self.shown.fill(selector, text)

    def print(self) -> bytes:
        """The page as PDF."""
        return self.shown.pdf(print_background=True)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; afterwards no process and no file of it is left."""
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses root.
        started = playwright.chromium.launch(
            executable_path=PROGRAM, args=["--no-sandbox"], timeout=PATIENCE
        )
        try:
            yield Browser(started)
        finally:
            started.close()
