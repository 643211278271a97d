# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests do in a host of the lab without its sshd: ask its kernel, give its balancer servers."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import fabric
from layout import Host

SECONDS = 120.0
# A pair of interfaces; packets for the balancer come in at `outer`, behind `inner` are its servers.
NETWORK = """
ip netns add servers
ip link add outer type veth peer name inner netns servers
ip addr add 10.99.0.1/24 dev outer
ip link set outer up
ip -n servers addr add 10.99.0.2/24 dev inner
ip -n servers link set inner up
ip -n servers link set lo up
ip -n servers route add 192.0.2.0/24 via 10.99.0.1
"""


def inside(host: Host, *words: str, check: bool = True, stdin: str = "") -> str:
    """What the command says in the host's namespaces."""
    enter = ["nsenter", f"--target={fabric.init_pid(host)}", "--mount", "--net", "--uts", "--pid"]
    done = subprocess.run(
        [*enter, "--", *words],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=SECONDS,
    )
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def bpftool(host: Host, *words: str) -> Any:
    """What it says as JSON; None when it says nothing."""
    return json.loads(inside(host, "bpftool", "-j", *words) or "null")


def add_servers(host: Host, *ports: int) -> None:
    """A network namespace `servers`, 10.99.0.2, with a web server at each of these ports."""
    for line in NETWORK.strip().splitlines():
        inside(host, *line.split())
    for port in ports:
        serve = f"exec ip netns exec servers python3 -m http.server {port} >/dev/null 2>&1 &"
        inside(host, "setsid", "sh", "-c", serve)
