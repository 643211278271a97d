# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health service without a balancer: configuration, judgement, and what it watches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import (
    health_config,
    health_watch,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health_config import Check, Config
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health_maps import Backend
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health_verdict import Verdict, judge
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health_watch import (
    Conditions,
    Watch,
)

ROOT = Path(__file__).parents[2]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# --- configuration


def test_what_is_not_said_has_a_default() -> None:
    config = health_config.parse({"services": {"web": {}, "tls": {"type": "https"}}})
    assert config.pin_dir == "/sys/fs/bpf/ebpf_fleet/xdp_lb"
    assert config.services == {"web": Check(), "tls": Check(type="https")}


@pytest.mark.parametrize(
    ("status", "ranges"),
    [
        (200, ((200, 200),)),
        ("200-299", ((200, 299),)),
        ([204, "301-302"], ((204, 204), (301, 302))),
        (None, ((200, 399),)),
    ],
)
def test_status_is_numbers_and_ranges(status: Any, ranges: Any) -> None:
    assert health_config.check({"type": "http", "status": status}, "web").status == ranges


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "gopher"}, "type 'gopher' is none of tcp, http, https"),
        ({"path": "healthz"}, "begins with /"),
        ({"path": "/a b"}, "holds no blanks"),
        ({"host": "a\r\nX: y"}, "is no text"),
        ({"status": "2xx"}, "'2xx' is no status: write 200, or 200-399"),
        ({"status": "299-200"}, "write the lower one first"),
        ({"status": []}, "names no status"),
        ({"interval": 0}, "interval is from 0.1 to 3600, not 0"),
        ({"interval": "1s"}, "interval '1s' is no number"),
        ({"interval": float("nan")}, "is no number"),
        ({"rise": 1.5}, "rise 1.5 is no whole number"),
        ({"fall": 0}, "fall is from 1 to 1000"),
        ({"jitter": 0.9}, "jitter is from 0 to 0.5"),
        ({"port": 70000}, "port is from 0 to 65535"),
        ({"rise": True}, "rise True is no number"),
        ({"verify": "yes"}, "neither true nor false"),
        ({"type": "http", "verify": True, "host": "a"}, "verify is for type https"),
        ({"type": "https", "verify": True}, "verify needs host"),
        ({"retries": 3}, "there is no option retries"),
        ("tcp", "health_check of service web is no mapping"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(options: Any, words: str) -> None:
    with pytest.raises(Failure, match=words.replace("(", r"\(")):
        health_config.check(options, "web")


@pytest.mark.parametrize("text", ["", "[]", '{"services": []}', '{"pins": "/x"}', "{"])
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "health.json"
    path.write_text(text)
    with pytest.raises(Failure, match=str(path)):
        health_config.read(str(path))


# --- judgement


def verdicts(start: str, results: str, rise: int = 2, fall: int = 3) -> list[str]:
    """The health after each check: + succeeded, - failed."""
    verdict, found = Verdict(start), []
    for result in results:
        verdict = judge(verdict, "" if result == "+" else "refused", rise, fall)
        found.append(verdict.health)
    return found


def test_health_changes_after_enough_equal_checks() -> None:
    assert verdicts("unknown", "++---++") == ["unknown", "up", "up", "up", "down", "down", "up"]


def test_health_that_was_found_in_the_map_stays_until_then() -> None:
    assert verdicts("down", "+-+-+-") == ["down"] * 6
    assert verdicts("up", "--+--+--+") == ["up"] * 9


def test_one_check_may_be_enough() -> None:
    assert verdicts("unknown", "-+-", rise=1, fall=1) == ["down", "up", "down"]


def test_a_long_streak_does_not_take_longer_to_turn() -> None:
    assert verdicts("up", "+" * 1000 + "---")[-1] == "down"


def test_the_reason_is_the_last_failure() -> None:
    assert judge(Verdict("up"), "connection refused", 2, 1).reason == "connection refused"


# --- watches


def backend(address: str, health: str = "unknown", disabled: bool = False) -> Backend:
    return Backend("web", address, 0, 80, disabled, health)


def test_the_port_is_the_check_s_the_backend_s_or_the_service_s() -> None:
    config = Config("/", {"web": Check(), "any": Check(), "admin": Check(port=9000)})
    own = replace(backend("10.0.0.1"), port=8080)
    assert health_watch.check_port(config, own) == 8080
    assert health_watch.check_port(config, backend("10.0.0.1")) == 80
    assert health_watch.check_port(config, replace(own, service="admin")) == 9000
    assert health_watch.check_port(config, replace(own, service="other")) == 0
    nowhere = replace(backend("10.0.0.1"), service="any", service_port=0)
    assert health_watch.check_port(config, nowhere) == 0


def test_only_what_differs_is_written() -> None:
    up, down, new = backend("10.0.0.1", "up"), backend("10.0.0.2", "up"), backend("10.0.0.3")
    gone, off = backend("10.0.0.4", "down"), backend("10.0.0.5", "down", disabled=True)
    watches = {
        up.key: Watch(Check(), 80, Verdict("up")),
        down.key: Watch(Check(), 80, Verdict("down")),
        new.key: Watch(Check(), 80, Verdict("unknown")),
    }
    wanted = health_watch.changes(watches, [up, down, new, gone, off])
    assert wanted == {down.key: "down", gone.key: "unknown"}


def test_watches_follow_the_maps_and_keep_what_they_know() -> None:
    async def run() -> None:
        config = Config("/", {"web": Check(interval=3600)})
        shared = Conditions({}, asyncio.Semaphore(1), asyncio.Event())
        watches: dict[tuple[str, str, int], Watch] = {}
        first, second = backend("10.0.0.1", "down"), backend("10.0.0.2")
        health_watch.follow(watches, config, [first, second], shared)
        assert {key: watch.verdict.health for key, watch in watches.items()} == {
            first.key: "down",
            second.key: "unknown",
        }
        kept = watches[first.key]
        kept.verdict = Verdict("up", 2)
        health_watch.follow(watches, config, [replace(first, health="up")], shared)
        assert watches == {first.key: kept}
        other = Config("/", {"web": Check(interval=3600, fall=9)})
        health_watch.follow(watches, other, [replace(first, health="up")], shared)
        assert watches[first.key] is not kept
        assert watches[first.key].verdict == Verdict("up")
        health_watch.follow(watches, other, [replace(first, disabled=True)], shared)
        assert not watches

    asyncio.run(run())


def test_hundreds_are_checked_at_once_within_the_limit() -> None:
    at_once = most = 0

    async def slow(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(slow, "127.0.0.1", 0, backlog=1000)
        port = server.sockets[0].getsockname()[1]
        check = Check(type="http", port=port, interval=0.1, timeout=5, rise=1)
        config = Config("/", {"web": check})
        shared = Conditions({check: None}, asyncio.Semaphore(32), asyncio.Event())
        watches: dict[tuple[str, str, int], Watch] = {}
        # One address, three hundred names of backends: the own port is not the checked one.
        backends = [replace(backend("127.0.0.1"), port=1 + number) for number in range(300)]
        health_watch.follow(watches, config, backends, shared)
        for _attempt in range(100):
            await asyncio.sleep(0.05)
            if all(watch.verdict.health == "up" for watch in watches.values()):
                break
        health_watch.stop(watches)
        server.close()

    asyncio.run(run())
    assert 8 < most <= 32
