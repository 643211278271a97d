# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that report.yml wrote of real hosts, in a real browser that clicks through it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import scene
from browser import Browser
from layout import Host
from scene import ASKED, HOSTS, ONE, OPEN, TWO, bpftool, plays

NAMES = [*(host.name for host in HOSTS), "app03"]
SIZES = {"phone": (360, 740), "tablet": (768, 1024), "desk": (1440, 900)}


# The text of an element, with a space between its parts and one for all white space.
SAY = """
function say(each) {
  const walker = document.createTreeWalker(each, NodeFilter.SHOW_TEXT);
  const parts = [];
  while (walker.nextNode()) {
    parts.push(walker.currentNode.data);
  }
  return parts.join(" ").replace(/\\s+/g, " ").trim();
}
"""


def texts(browser: Browser, selector: str, condition: str = "true") -> list[str]:
    """What the elements say of which the condition holds."""
    chosen = f"Array.from(document.querySelectorAll({json.dumps(selector)}))"
    found: list[str] = browser.ask(
        f"(() => {{{SAY} return {chosen}.filter(each => {condition}).map(say)}})()"
    )
    return found


def seen(browser: Browser, selector: str) -> list[str]:
    """The same of those that take room on the page."""
    return texts(browser, selector, "each.checkVisibility()")


def totals(host: Host, pin: str) -> dict[str, int]:
    """Sums over all entries and CPUs of a map of counters, by bpftool."""
    sums: dict[str, int] = {}
    for entry in bpftool(host, "map", "dump", "pinned", f"{scene.HOME}/{pin}"):
        for each in entry["formatted"]["values"]:
            for name, number in each["value"].items():
                sums[name] = sums.get(name, 0) + number
    return sums


def await_open(browser: Browser, count: int) -> None:
    """Wait until so many hosts are open, which an event in the page brings about."""
    scene.wait_for(lambda: len(seen(browser, ".host .body")) == count, f"{count} open hosts")


def style(browser: Browser, selector: str, name: str) -> str:
    quoted = json.dumps(selector)
    found: str = browser.ask(f"getComputedStyle(document.querySelector({quoted})).{name}")
    return found


def channels(colour: str) -> tuple[int, ...]:
    """Red, green and blue of what a computed style says."""
    return tuple(int(number) for number in re.findall(r"\d+", colour)[:3])


def test_every_host_is_there_with_its_state_and_release(browser: Browser) -> None:
    assert texts(browser, "h1") == ["Fleet & <friends>"]
    assert texts(browser, "details.host .who") == NAMES
    rows = {row.split()[0]: row for row in texts(browser, "#releases tbody tr")}
    assert list(rows) == NAMES
    assert "in sync" in rows["app01"]
    assert "2026.1" in rows["app01"]
    assert "2026.2" in rows["app01"]
    assert "drifted" in rows["app02"]
    assert "unreachable" in rows["app03"]
    tile = texts(browser, ".tile")[0]
    assert tile == "Hosts 3 1 in sync · 1 drifted · 1 unreachable"


def test_what_is_loaded_and_attached_is_what_bpftool_says(browser: Browser) -> None:
    pinned = 0
    for host in HOSTS:
        programs = [
            program
            for program in bpftool(host, "-f", "prog", "show")
            if any(pin.startswith(scene.HOME) for pin in program.get("pinned", ()))
        ]
        pinned += len(programs)
        block = f"details.host:nth-of-type({1 + HOSTS.index(host)}) .body"
        told = " ".join(texts(browser, f"{block} tbody th"))
        for program in programs:
            assert f"{program['name']} {program['id']}" in told
        attached = bpftool(host, "cgroup", "show", "/sys/fs/cgroup/web")
        assert attached
        for program in attached:
            cells = [row for row in texts(browser, f"{block} tr") if row.startswith("cgroup ")]
            assert any(
                "/sys/fs/cgroup/web" in row and str(program["id"]) in row and "2026.1" in row
                for row in cells
            ), cells
    xdp = [row for row in texts(browser, "#host-1 tr") if row.startswith("xdp ")]
    assert len(xdp) == 1
    assert "outer" in xdp[0]
    assert "generic" in xdp[0]
    assert f"{pinned} programs of ours" in texts(browser, ".tile")[1]


def test_drift_and_silence_are_red_and_said(browser: Browser) -> None:
    rows = {row.split()[0]: row for row in texts(browser, "#attention tbody tr")}
    assert list(rows) == ["app03", "app02"]
    assert "unreachable" in rows["app03"]
    assert "ssh" in rows["app03"]
    assert "drifted" in rows["app02"]
    assert "policy_ports" in rows["app02"]
    red, green, blue = channels(style(browser, "#attention .badge.bad", "color"))
    assert red > 150
    assert max(green, blue) < 100
    assert "✕" in style(browser, "#attention .badge.bad", "content") + browser.ask(
        "getComputedStyle(document.querySelector('#attention .badge.bad'), '::before').content"
    )


def test_the_shares_are_those_of_the_connections_that_were_made(browser: Browser) -> None:
    assert texts(browser, "#balancers figcaption b") == ["shop"]
    opened = totals(ONE, "xdp_lb/maps/backend_counters")["connections"]
    assert opened >= ASKED
    assert f"{opened} connections" in texts(browser, "#balancers figcaption")[0]
    shares = texts(browser, ".share .value")
    counts = [int(text.split()[0]) for text in texts(browser, ".share .note:last-of-type")]
    assert len(shares) == 3
    assert sum(counts) == opened
    assert counts[2] == 0
    assert sum(float(share.rstrip(" %")) for share in shares) == pytest.approx(100, abs=0.2)
    for share, count in zip(shares, counts):
        assert float(share.rstrip(" %")) == pytest.approx(100 * count / opened, abs=0.06)
    assert texts(browser, ".share .note.bad") == ["✕ down"]
    names = texts(browser, "#balanced .name")
    assert names == ["shop", "app01", *(f"10.99.0.2:{port}" for port in (8081, 8082, 8083))]
    assert "xdp outer generic" in texts(browser, "#balanced .note")


def test_who_talks_to_whom_is_what_is_open(browser: Browser) -> None:
    # One connection in a thousand looks as if a SYN cookie had let it in, and is left on TCP.
    held = len(bpftool(ONE, "map", "dump", "pinned", f"{scene.HOME}/sockmap/maps/sockets")) // 2
    assert OPEN - 1 <= held <= OPEN
    bands = texts(browser, "#accelerated .band.good title")
    assert bands == [f"app01 → cgroup web → 127.0.0.1:9001: {held} connections"] * 2
    assert "sock_ops → sk_msg" in texts(browser, "#accelerated .note")
    assert texts(browser, "#accelerators .bars:not(.reasons) td.number") == [str(held), "0"]


def test_accelerated_and_left_are_the_counters(browser: Browser) -> None:
    counted = totals(ONE, "sockmap/maps/counters")
    assert counted["admitted"] >= 2 * OPEN - 2
    row = texts(browser, "#accelerators .bars:not(.reasons) tbody tr")[0]
    assert f"{counted['admitted']} accelerated" in row
    assert f"{counted['paired']} past the stack" in row


def test_before_and_after_are_compared(browser: Browser) -> None:
    assert "Measured <before> & after." in texts(browser, "#figures .lead")
    assert texts(browser, "#figures .ratio.better") == ["▲ \N{MULTIPLICATION SIGN}1.50"]
    assert texts(browser, "#figures .ratio.worse") == ["▼ \N{MULTIPLICATION SIGN}1.50"]


def test_what_a_host_says_is_text(browser: Browser) -> None:
    assert browser.ask("document.title") == "Fleet & <friends>"
    assert browser.ask("document.images.length") == 0
    assert browser.ask("document.scripts.length") == 1
    labels = texts(browser, "#host-2 .label")
    assert "team=<script>document.title = 'run'</script>" in labels
    assert 'ticket="><img src=x onerror="document.title=1">' in labels


def test_the_filter_leaves_what_fits(browser: Browser) -> None:
    browser.fill("#find", "XDP_LB 2026.2")
    assert seen(browser, "details.host .who") == ["app01"]
    assert seen(browser, "#releases tbody th") == ["app01"]
    assert seen(browser, "#attention tbody tr") == []
    assert texts(browser, "#found") == ["1 of 3 hosts"]
    browser.fill("#find", "no such host")
    assert seen(browser, "details.host") == []
    assert seen(browser, "#none") == ["No host fits."]


def test_a_host_opens_by_a_click_and_by_its_link(browser: Browser) -> None:
    assert seen(browser, ".host .body") == []
    browser.click("#host-1 > summary")
    assert len(seen(browser, ".host .body")) == 1
    assert "Attached on app01" in seen(browser, "#host-1 caption")
    browser.click("#releases a[href='#host-2']")
    await_open(browser, 2)
    browser.click("#unfold")
    await_open(browser, 3)
    browser.click("#unfold")
    await_open(browser, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_phones_and_desks_in_the_dark_and_by_day(
    browser: Browser, page: Path, size: str, dark: bool
) -> None:
    browser.open(page, SIZES[size], dark=dark)
    browser.ask("document.querySelectorAll('details').forEach(each => { each.open = true })")
    width, window = browser.ask("[document.documentElement.scrollWidth, innerWidth]")
    assert width == window == SIZES[size][0]
    ground, ink = (
        sum(channels(style(browser, "body", name))) for name in ("backgroundColor", "color")
    )
    assert (ground < 150) == dark
    assert (ink > 450) == dark


def test_on_paper_everything_is_open(browser: Browser, page: Path) -> None:
    browser.open(page, medium="print", scripts=False)
    assert len(seen(browser, ".host .body caption")) >= 5
    assert seen(browser, ".tools") == []
    assert browser.print().startswith(b"%PDF")


def test_it_is_whole_without_scripts(browser: Browser, page: Path) -> None:
    browser.open(page, scripts=False)
    assert seen(browser, "#filter") == []
    assert seen(browser, "details.host .who") == NAMES
    browser.click("#host-1 > summary")
    assert "Attached on app01" in seen(browser, "#host-1 caption")


def test_who_cannot_see_is_told(browser: Browser) -> None:
    """Every table has a caption, every drawing a name, and headings leave out no level."""
    unnamed: list[Any] = browser.ask(
        "Array.from(document.querySelectorAll('table')).filter(e => !e.caption)"
        ".concat(Array.from(document.querySelectorAll('svg:not([aria-hidden])')).filter(e => e.getAttribute('role') !== 'img'"
        " || !(e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby').split(' ')[0]))))"
        ".map(e => e.outerHTML.slice(0, 200))"
    )
    assert unnamed == []
    levels = browser.ask(
        "Array.from(document.querySelectorAll('h1, h2, h3')).map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    assert browser.ask("document.documentElement.lang") == "en"


def test_nothing_is_written_in_check_mode_and_nothing_twice(hosts: None, tmp_path: Path) -> None:
    """Of a host of which no counter moves."""
    quiet, only = tmp_path / "quiet.html", ("--limit", TWO.name)
    assert "not written in check mode" in scene.report(quiet, *only, "--check").stdout
    assert not quiet.exists()
    assert plays.parse(scene.report(quiet, *only).stdout)[0].changed == 1
    before = quiet.stat()
    assert plays.parse(scene.report(quiet, *only).stdout)[0].changed == 0
    assert quiet.stat().st_mtime_ns == before.st_mtime_ns
