# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report is made of: two hosts of tests/lab, with traffic that is counted, and drift.

app01 has an accelerator through which connections are open, and a balancer with two servers that
answer and one that does not. app02 has an accelerator from which somebody has taken an entry, and
a program with labels that are HTML.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
os.environ["EBPF_FLEET_LAB"] = "report"  # read by layout
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))

import fabric  # noqa: E402
import plays  # noqa: E402
import shell  # noqa: E402
from inside import add_servers, bpftool, inside  # noqa: E402
from layout import HOSTS  # noqa: E402

ONE, TWO = HOSTS
PATIENCE = 120.0
HOME = "/sys/fs/bpf/ebpf_fleet"
OPEN = 3  # accelerated connections
ASKED = 12  # connections to the service
# Connections of two sockets of the control group that stay open once each has carried data both ways.
TALK = """
import socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", 9001))
listener.listen(9)
kept = []
for _ in range(int(sys.argv[1])):
    client = socket.create_connection(("127.0.0.1", 9001))
    server, _address = listener.accept()
    for one, other in ((client, server), (server, client)):
        one.sendall(b"x" * 1000)
        left = 1000
        while left:
            left -= len(other.recv(left))
    kept.append((client, server))
open("/run/talking", "w").close()
while True:
    time.sleep(60)
"""
FIGURES = {
    "title": "Measured <before> & after.",
    "note": "",
    "figures": [
        {
            "what": "ping-pong",
            "measure": "round trips/s",
            "better": "higher",
            "values": {"plain": 50000, "accelerated": 75000},
        },
        {
            "what": "ping-pong",
            "measure": "p99, µs",
            "better": "lower",
            "values": {"plain": 40.0, "accelerated": 60.0},
        },
    ],
}


def up() -> None:
    """Everything is declared, connections are open, and one host has drifted."""
    fabric.down()
    fabric.up()
    add_servers(ONE, 8081, 8082)
    for host in HOSTS:
        inside(host, "mkdir", "-p", "/sys/fs/cgroup/web")
    played = ansible(str(HERE / "everything.yml"))
    assert played.returncode == 0, played.stdout[-6000:] + played.stderr
    # Of the connections none is to meet the server that is down, nor one that is not up yet.
    wait_for(lambda: healths() == [1, 1, 2], "the health checks")
    for dummy in range(ASKED):
        ask = ("curl", "-sSf", "-m30", "-o/dev/null", "http://192.0.2.10/")
        inside(ONE, "ip", "netns", "exec", "servers", *ask)
    talk = f"echo $$ >/sys/fs/cgroup/web/cgroup.procs; exec python3 -c '{TALK}' {OPEN} >/run/talk.log 2>&1 &"
    inside(ONE, "setsid", "sh", "-c", talk)
    wait_for(lambda: inside(ONE, "ls", "/run").split().count("talking"), "the connections")
    port = bpftool(TWO, "map", "dump", "pinned", f"{HOME}/sockmap/maps/policy_ports")[0]["key"]
    inside(TWO, *f"bpftool map delete pinned {HOME}/sockmap/maps/policy_ports key".split(), *port)


def down() -> None:
    """Nothing of it stays."""
    fabric.down()
    assert not fabric.cgroups.lab_cgroup().exists()


def healths() -> list[int]:
    """What the balancer's checks say of the backends: 1 is up, 2 down."""
    entries = bpftool(ONE, "map", "dump", "pinned", f"{HOME}/xdp_lb/maps/backends")
    values = [entry["formatted"]["value"] for entry in entries]
    return sorted(value["health"] for value in values if value["service"])


def wait_for(condition: Callable[[], object], what: str) -> None:
    shell.wait_for(condition, what, PATIENCE)


def ansible(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook on the hosts."""
    words = [plays.ansible_playbook(), "-i", str(HERE / "inventory"), playbook, *options]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.run(
        words, check=False, capture_output=True, text=True, env=environment, timeout=300
    )


def report(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Write the page; with ``--check``, do not."""
    given = {"report_file": str(page), "report_title": "Fleet & <friends>"}
    figures = page.with_name("figures.json")
    if figures.exists():
        given["report_figures"] = str(figures)
    done = ansible("ebpf.fleet.report", "-e", json.dumps(given), *options)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    return done
