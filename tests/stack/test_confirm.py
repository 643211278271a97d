# SPDX-License-Identifier: GPL-3.0-or-later
"""Commit-confirm: a change goes back by itself unless somebody confirms it, whatever becomes of its guard."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import release_host
from release_host import Host, Made, Refused, wait_for

LONG, SHORT = 300, 6  # seconds to confirm in


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return release_host.build(tmp_path_factory.mktemp("made"))


@pytest.fixture
def host(tmp_path: Path, made: Made) -> Iterator[Host]:
    with release_host.running(tmp_path / "disk", made) as running:
        yield running


def deploy(host: Host, number: int, seconds: int, **more: Any) -> dict[str, Any]:
    """Deploy release ``r<number>``, to be confirmed within so many seconds."""
    return host.deploy(
        host.manifest(f"r{number}", number),
        confirm_timeout=seconds,
        engine=host.install(),
        **more,
    )


def test_a_confirmed_release_stays_and_its_guard_ends(host: Host) -> None:
    deploy(host, 1, 0)
    did = deploy(host, 2, LONG)
    assert 0 < did["confirm_by"] - time.time() <= LONG
    assert len(host.guards()) == 1
    told = host.status()
    assert told["condition"] == "unfinished"
    assert told["pending"]["release"] == "r2"
    assert told["pending"]["from"] == "r1"
    assert told["pending"]["confirm_by"] == did["confirm_by"]

    assert host.do("confirm", "r2", check=True)["changed"]
    assert host.do("confirm", "r2")["changed"]
    wait_for(lambda: not host.guards())
    assert host.version() == 2
    assert host.status()["condition"] == "in_sync"
    assert not host.do("confirm", "r2")["changed"]
    with pytest.raises(Refused, match="is not what this host runs"):
        host.do("confirm", "r1")


def test_an_unconfirmed_release_goes_back(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, SHORT)
    assert host.version() == 2
    wait_for(lambda: host.version() == 1)
    wait_for(lambda: not host.guards())
    told = host.status()
    assert (told["condition"], told["active"], told["pending"]) == ("in_sync", "r1", None)
    (taken_back,) = (each for each in told["releases"] if each["name"] == "r2")
    assert taken_back["reverted"]
    with pytest.raises(
        Refused, match=r"taken back at .* nobody had confirmed it; the host runs r1"
    ):
        host.do("confirm", "r2")
    assert not host.do("withdraw", "r2")["changed"]
    assert deploy(host, 2, 0)["changed"]
    assert host.version() == 2


def test_the_first_release_goes_back_to_nothing(host: Host) -> None:
    deploy(host, 1, SHORT)
    wait_for(lambda: host.version() is None)
    wait_for(lambda: not host.guards())
    assert host.status()["condition"] == "removed"


def test_a_change_that_touches_no_hook_needs_no_confirmation(host: Host) -> None:
    deploy(host, 1, 0)
    moved = {**host.manifest("r2", 1), "boot": "never"}
    did = host.deploy(moved, confirm_timeout=LONG, engine=host.install())
    assert did["changed"]
    assert "confirm_by" not in did
    assert host.guards() == []


def test_check_mode_starts_no_guard(host: Host) -> None:
    host.deploy(host.manifest("r1", 1), check=True, confirm_timeout=LONG)
    assert host.guards() == []
    assert host.listing() == []


def test_the_same_again_still_waits_and_a_deployment_without_a_wait_confirms(host: Host) -> None:
    deploy(host, 1, 0)
    first = deploy(host, 2, LONG)
    again = deploy(host, 2, LONG)
    assert not again["changed"]
    assert again["confirm_by"] == first["confirm_by"]
    did = deploy(host, 2, 0)
    assert did["actions"] == ["confirm release r2 of stack web"]
    wait_for(lambda: not host.guards())
    assert "confirm_by" not in deploy(host, 2, LONG)


def test_a_release_over_an_unconfirmed_one_goes_back_to_the_last_confirmed(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, LONG)
    did = deploy(host, 3, SHORT)
    assert any("r2 of stack web was never confirmed" in warning for warning in did["warnings"])
    wait_for(lambda: host.version() == 1)
    wait_for(lambda: not host.guards())
    assert host.status()["active"] == "r1"


def test_withdrawing_what_waits_ends_the_wait(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, LONG)
    assert host.do("withdraw", "r2")["release"] == "r1"
    wait_for(lambda: not host.guards())
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"


def test_a_killed_guard_is_told_and_the_release_can_still_be_confirmed(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, SHORT)
    for pid in host.guards():
        os.kill(pid, signal.SIGKILL)
    time.sleep(SHORT + 0.5)
    assert host.version() == 2
    told = host.status()
    assert told["condition"] == "unfinished"
    assert "was never confirmed, and no guard took it back" in told["reason"]
    assert host.do("confirm", "r2")["changed"]
    assert host.status()["condition"] == "in_sync"


def test_a_killed_guard_is_made_up_for_by_a_replay(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, SHORT)
    for pid in host.guards():
        os.kill(pid, signal.SIGKILL)
    assert "waits to be confirmed" in host.engine("replay").stderr
    assert host.version() == 2
    time.sleep(SHORT + 0.5)
    assert "never confirmed: back to r1" in host.engine("replay").stderr
    assert host.version() == 1


def test_a_boot_takes_an_unconfirmed_release_back(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, LONG)
    host.reboot()
    wait_for(lambda: host.version() is None)
    host.engine("replay")
    assert host.version() == 1
    told = host.status()
    assert (told["condition"], told["active"]) == ("in_sync", "r1")


def test_the_clock_does_not_move_the_deadline(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, LONG)
    path = host.stored("pending.json")
    document = {**json.loads(path.read_text()), "confirm_by": 7}  # decades ago
    path.with_name("changed").write_text(json.dumps(document))
    path.with_name("changed").rename(path)
    time.sleep(1.5)
    assert host.version() == 2
    assert len(host.guards()) == 1


def test_the_guard_outlives_the_session_that_started_it(host: Host) -> None:
    deploy(host, 1, 0)
    deploy(host, 2, LONG)
    (guard,) = host.guards()
    assert os.getsid(guard) == guard
    for number in (0, 1, 2):
        assert os.readlink(f"/proc/{guard}/fd/{number}") == "/dev/null"


SYSTEMD_RUN = """#!/bin/sh
echo "$@" >"$0.words"
while [ "$1" != -- ]; do shift; done
shift
setsid "$@" </dev/null >/dev/null 2>&1 &
"""


def test_systemd_runs_the_guard_where_it_runs_the_host(host: Host) -> None:
    host.systemd = True
    host.reboot()
    program = host.disk / "usr/local/sbin/systemd-run"
    program.write_text(SYSTEMD_RUN)
    program.chmod(0o755)
    deploy(host, 1, 0)
    deploy(host, 2, SHORT)
    words = Path(f"{program}.words").read_text().split()
    assert words[:2] == ["--quiet", "--collect"]
    assert words[2].startswith("--unit=ebpf-fleet-guard-web-")
    known = subprocess.run(
        ["/usr/bin/systemd-run", "--help"], capture_output=True, text=True, check=True
    )
    assert all(word.partition("=")[0] in known.stdout for word in words[:3])
    wait_for(lambda: host.version() == 1)
    wait_for(lambda: not host.guards())
    program.write_text("#!/bin/sh\necho no such bus >&2; exit 1\n")
    before = host.listing("/var/lib/ebpf-fleet")
    with pytest.raises(Refused, match=r"systemd-run does not start the guard .*: no such bus"):
        deploy(host, 3, LONG)
    assert host.listing("/var/lib/ebpf-fleet") == before
    assert host.version() == 1


def test_without_an_engine_there_is_no_guard_and_so_no_change(host: Host) -> None:
    with pytest.raises(Refused, match=r"there is no engine .* set confirm_timeout: 0"):
        host.deploy(host.manifest("r1", 1), confirm_timeout=LONG)
    assert host.listing() == []
    assert host.version() is None
