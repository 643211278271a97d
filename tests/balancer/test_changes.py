# SPDX-License-Identifier: GPL-3.0-or-later
"""Backends come, drain, go and change their weight, the program is upgraded, health flaps: clients do not notice.

Each test runs requests, sessions, datagrams and uploads the whole time. At its end no request has failed, no session
has changed its backend, and neither balancer nor backends have sent a reset.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import clients
import pytest
from clients import Report
from scenario import DSR6, NAT6, ONE_EACH, Mode, Scenario, scenario
from servers import Server
from topology import Topology, wait_for

Quiet = Callable[[], AbstractContextManager[None]]
CHANGED = [*ONE_EACH, DSR6, NAT6]


@pytest.fixture(params=CHANGED, ids=str)
def changing(
    request: pytest.FixtureRequest, network: Topology, backends: tuple[Server, ...]
) -> Iterator[Scenario]:
    with scenario(request.param, network) as made:
        yield made


@contextmanager
def busy(at_work: Scenario) -> Iterator[Report]:
    kinds = {"requests": 6, "sessions": 60, "datagrams": 10, "uploads": 3}
    with clients.load(at_work.client, at_work.vip, **kinds) as report:
        yield report


def backend_of(outcome: Any, at_work: Scenario, address: str) -> list[dict[str, Any]]:
    """What the engine reports of one backend, in each service that has it."""
    return [
        backend
        for service in outcome.report["services"]
        for backend in service["backends"]
        if backend["address"] == address
    ]


def test_backends_come_and_go(changing: Scenario, no_resets: Quiet) -> None:
    """Added, weighted anew, drained until its last connection is gone, removed."""
    *first, last = changing.all()
    changing.serve(first)
    with no_resets():
        with busy(changing) as report:
            changing.serve([*first, last])
            time.sleep(1)
            changing.serve([first[0] | {"weight": 5}, *first[1:], last | {"weight": 3}])
            time.sleep(1)
            drained = [*first, last | {"state": "draining"}]
            changing.serve(drained)

            def gone() -> bool:
                states = backend_of(changing.serve(drained), changing, last["address"])
                return not any(state["slots"] or state["connections"] for state in states)

            assert wait_for(gone, 30), backend_of(
                changing.serve(drained), changing, last["address"]
            )
            time.sleep(1.2)  # uploads that began before the drain, which no table has
            changing.serve(first)
            time.sleep(0.5)
    report.assert_clean()
    assert report.backends("requests")["backend4"] > 10
    assert "backend4" not in report.backends("sessions")


def left(at_work: Scenario, backend: dict[str, Any]) -> int:
    """How many sessions the engine says that a draining backend still has."""
    draining = [
        each | {"state": "draining"} if each["address"] == backend["address"] else each
        for each in at_work.all()
    ]
    outcome = at_work.serve(draining)
    assert not outcome.changed
    lines = next(s for s in outcome.report["services"] if s["name"].startswith("lines"))
    return sum(b["connections"] for b in lines["backends"] if b["address"] == backend["address"])


def test_draining_keeps_what_is_open(changing: Scenario, no_resets: Quiet) -> None:
    """Sessions stay on a draining backend as long as they like; new connections go elsewhere."""
    one, *others = changing.all()
    with no_resets(), busy(changing) as report:
        changing.serve([one | {"state": "draining"}, *others])
        time.sleep(0.3)
        now = {clients.curl(changing.client, changing.vip).strip() for dummy in range(12)}
        assert "backend1" not in now
        time.sleep(1)
        assert 0 < left(changing, one) <= 60
    report.assert_clean()
    assert report.backends("sessions")["backend1"] > 50
    assert wait_for(lambda: left(changing, one) == 0, 20)


def test_upgrade(changing: Scenario, no_resets: Quiet) -> None:
    """Another release of the program takes over the link, five times, with maps and connections kept."""
    *first, last = changing.all()
    changing.serve(first)
    other = changing.network.clients[1]
    with no_resets(), busy(changing) as report, clients.wrk_meanwhile(other, changing.vip) as seen:
        changing.serve([*first, last])  # some slots are moved: what the tables hold is kept as well
        for dummy in range(5):
            before = changing.balancer.program()["id"]
            assert changing.balancer.load().changed
            outcome = changing.balancer.attach()
            assert [change.action for change in outcome.changes] == ["update link"]
            assert changing.balancer.program()["id"] != before
            time.sleep(0.3)
    report.assert_clean()
    assert seen[0].errors == ""
    assert seen[0].requests > 200


def test_a_second_run_changes_nothing(changing: Scenario) -> None:
    """With traffic, too: what the data plane writes is no drift."""
    with busy(changing) as report:
        wanted = changing.all()
        wanted[0]["weight"] = 7
        assert changing.serve(wanted, check=True).changed
        assert changing.serve(wanted).changed
        for dummy in range(3):
            assert not changing.serve(list(reversed(wanted))).changed
            assert not changing.serve(wanted, check=True).changed
            time.sleep(0.1)
    report.assert_clean()


@contextmanager
def health_service(at_work: Scenario, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The balancer's health service, in the balancer's namespace, checking quickly."""
    check = {
        "type": "http",
        "path": "/healthz",
        "port": 80,
        "interval": 0.1,
        "timeout": 5,
        "rise": 2,
        "fall": 2,
    }
    names = [service["name"] for service in at_work.balancer.declared]
    configuration = directory / "health.json"
    wanted = {"pin_dir": at_work.balancer.node.name, "services": dict.fromkeys(names, check)}
    configuration.write_text(json.dumps(wanted))
    package = "ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health"
    start = f"import sys; from {package} import main; sys.exit(main(sys.argv[1:]))"
    command = at_work.balancer.node.command(sys.executable, "-c", start, str(configuration))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.parametrize("mode", ONE_EACH, ids=str)
def test_health_flaps(
    mode: Mode,
    network: Topology,
    backends: tuple[Server, ...],
    no_resets: Quiet,
    tmp_path: Path,
) -> None:
    """Backends fail their checks and recover, again and again; what they serve goes on all the same."""
    with scenario(mode, network) as at_work:
        checked = [
            {**each, "health_check": {"type": "http"}} for each in at_work.services(at_work.all())
        ]
        at_work.balancer.declare(checked)

        healths = at_work.balancer.healths
        with health_service(at_work, tmp_path), no_resets(), busy(at_work) as report:
            assert wait_for(lambda: healths().count("HEALTH_UP") == 16, 30), healths()
            for dummy in range(2):
                backends[0].healthy(False)
                assert wait_for(lambda: healths().count("HEALTH_DOWN") == 4, 10), healths()
                now = {clients.curl(at_work.client, at_work.vip).strip() for each in range(12)}
                assert now <= {"backend2", "backend3", "backend4"}
                backends[0].healthy(True)
                assert wait_for(lambda: healths().count("HEALTH_UP") == 16, 10), healths()
        report.assert_clean()
        assert report.backends("sessions")["backend1"] > 50


@pytest.mark.parametrize("mode", ONE_EACH, ids=str)
def test_a_crash_of_the_health_service_changes_nothing(
    mode: Mode, network: Topology, backends: tuple[Server, ...], tmp_path: Path
) -> None:
    with scenario(mode, network) as at_work:
        with busy(at_work) as report:
            with health_service(at_work, tmp_path) as process:
                time.sleep(1)
                process.kill()
                process.wait()
            time.sleep(0.5)
        report.assert_clean()
