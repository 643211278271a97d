# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium, driven through a pair of pipes by the DevTools protocol.

It has a session and a directory of its own, so that nothing of it is left whatever happens. Its
network namespace has no interface that is up: a page that asked for anything would not get it.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

PROGRAM = "chromium-headless-shell"
PATIENCE = 120.0  # seconds for one answer, on a machine that has other things to do
# The protocol's pipes are descriptors 3 and 4.
_START = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
_OPTIONS = (
    "--no-sandbox",
    "--no-zygote",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


@dataclass
class Browser:
    """One page. ``requests`` are the addresses that it asked for, ``complaints`` all else it said."""

    process: int
    into: int
    out: int
    session: str = ""
    number: int = 0
    received: bytes = b""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loaded: int = 0

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask for something and wait for the answer. What happens meanwhile is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.into, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def next(self) -> dict[str, Any]:
        """The next message."""
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.received:
            ready, _, _ = select([self.out], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            data = os.read(self.out, 1 << 20)
            assert data, "the browser has ended"
            self.received += data
        line, _, self.received = self.received.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self.note(message.get("method", ""), message.get("params", {}))
        return message

    def note(self, event: str, about: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(f"{about['type']}: {about['args']}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(about["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.complaints.append(str(about["entry"]))
        elif event == "Page.loadEventFired":
            self.loaded += 1

    def attach(self) -> None:
        """Make a page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def shape(self, width: int, height: int, dark: bool = False, medium: str = "") -> None:
        """The window's size in CSS pixels, the preferred colours, and screen or print."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=medium, features=[colours])

    def scripts(self, enabled: bool) -> None:
        """Whether pages may run scripts of theirs; this takes effect when one is opened."""
        self.call("Emulation.setScriptExecutionDisabled", value=not enabled)

    def open(self, page: Path, fragment: str = "") -> None:
        """Go to the file, and wait until it is there."""
        self.requests.clear()
        before = self.loaded
        # From elsewhere, so that a fragment alone is a visit, too.
        self.call("Page.navigate", url="about:blank")
        self.await_load(before)
        before = self.loaded
        self.requests.clear()
        self.call("Page.navigate", url=page.as_uri() + fragment)
        self.await_load(before)

    def await_load(self, before: int) -> None:
        while self.loaded == before:
            self.next()

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, (expression, answer)
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Press and release the mouse on an element."""
        quoted = json.dumps(selector)
        self.ask(f"document.querySelector({quoted}).scrollIntoView({{block: 'center'}})")
        box = self.ask(
            f"(b => [b.x + Math.min(b.width / 2, 60), b.y + b.height / 2])(document.querySelector({quoted}).getBoundingClientRect())"
        )
        for what in ("mousePressed", "mouseReleased"):
            where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=what, **where)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, whole: bool = True) -> None:
        """A PNG of the page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "scale": 1, "width": size["width"], "height": size["height"]}
        more = {"clip": clip, "captureBeyondViewport": True} if whole else {}
        shot = self.call("Page.captureScreenshot", format="png", **more)
        path.write_bytes(base64.b64decode(shot["data"]))

    def print(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with an empty page. Afterwards no process and no file of it is left."""
    home = Path(tempfile.mkdtemp(prefix="ebpf-fleet-browser-"))
    to_browser, into = os.pipe()
    out, from_browser = os.pipe()
    program = [PROGRAM, *_OPTIONS, f"--user-data-dir={home}", "about:blank"]
    inside = ["unshare", "--net", "--", "bash", "-c", _START, "bash"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [*inside, str(to_browser), str(from_browser), *program],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(to_browser, from_browser),
            env={**os.environ, "HOME": str(home), "TMPDIR": str(home)},
            start_new_session=True,
        )
    try:
        os.close(to_browser)
        os.close(from_browser)
        browser = Browser(process.pid, into, out)
        browser.attach()
        yield browser
    finally:
        end(process.pid)
        process.wait(timeout=PATIENCE)
        os.close(into)
        os.close(out)
        shutil.rmtree(home, ignore_errors=True)


def end(session: int) -> None:
    """Kill every process of the session, and wait until there is none."""
    deadline = time.monotonic() + PATIENCE
    while found := members(session):
        assert time.monotonic() < deadline, f"cannot kill {found}"
        for number in found:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def members(session: int) -> list[int]:
    """The processes of a session that have not ended."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(after_name[3]) == session and after_name[0] != "Z":
            found.append(int(directory.name))
    return found
