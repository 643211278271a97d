# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancers under load: what their clients notice while a backend dies, drains and returns."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cgroups import LabError
from fabric import ssh
from layout import (
    BACKENDS,
    BALANCERS,
    CLIENTS,
    REPOSITORY,
    SERVICE,
    SSH_CONFIG,
    STATE,
    Host,
)
from plays import output, play, table
from progress import step
from shell import wait_for

GROUP = "xdp_lb"
GROUPS = "xdp_lb:xdp_lb_backend"
# One service for each way of forwarding, and one over IPv6; the inventory declares them.
VIPS = {
    "nat": "http://192.0.2.10/",
    "dsr": "http://192.0.2.20/",
    "ipip": "http://192.0.2.30/",
    "dsr, IPv6": "http://[2001:db8:1::20]/",
}
STOP = "/tmp/enough"
# Bytes behind the end of an object change nothing of it but what it is known by.
BUILD = REPOSITORY / "roles/xdp_lb/files/xdp_lb.bpf.o"
NEW_BUILD = STATE / "xdp_lb.bpf.o"
NEW = "lab-2"
CURLS = 24


@dataclass
class Load:
    """What clients saw: requests answered and given up, connections broken and refused."""

    requests: int = 0
    failed: int = 0
    broken: int = 0
    refused: int = 0
    by: dict[str, int] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """Something that happens to the service, and what its clients may notice of it."""

    title: str
    happen: Callable[[], object]


@contextmanager
def load(client: Host = CLIENTS[0]) -> Iterator[Load]:
    """Ask every service for as long as the block lasts; the figures are there after it."""
    ssh(client, "rm", "-f", STOP)
    command = [
        "ssh",
        "-F",
        str(SSH_CONFIG),
        client.name,
        "python3",
        "/usr/local/sbin/ask",
        STOP,
        *VIPS.values(),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    seen = Load()
    try:
        yield seen
    finally:
        ssh(client, "touch", STOP)
        text, _errors = process.communicate(timeout=60)
    if process.returncode or not text:
        raise LabError(f"{' '.join(command)} failed ({process.returncode})")
    for name, value in json.loads(text).items():
        setattr(seen, name, value)


def served(url: str, count: int = CURLS) -> Counter[str]:
    """Which backend answered each of so many connections to the service."""
    one = f"curl -gsS -m 5 -o /dev/null -w '%header{{x-served-by}}\n' '{url}'"
    answers = ssh(CLIENTS[0], f"for i in $(seq {count}); do {one}; done").stdout.split()
    return Counter(answers)


def kill_and_bring_back(backend: Host = BACKENDS[1]) -> None:
    """The server dies as by SIGKILL; health checks find out; it comes back."""
    ssh(backend, "web", "kill")
    await_health(backend, "down")
    ssh(backend, "web", "start")
    await_health(backend, "up")


def drain(backend: Host = BACKENDS[2]) -> None:
    """No new connections to the backend; those it has may end."""
    address = SERVICE.addresses(backend.number)[0]
    play("drain", GROUP, "-e", f"backend={address}")


def add() -> None:
    """site.yml makes the balancers what the inventory says: the drained backend is back."""
    play("site", GROUP)


def upgrade() -> str:
    """Another release takes over, with another build of the program. Returns what was said of it."""
    NEW_BUILD.write_bytes(BUILD.read_bytes() + b"another build")
    told = output("site", GROUP, "-e", f"xdp_lb_release={NEW}", "-e", f"xdp_lb_object={NEW_BUILD}")
    return "\n".join(table(told, "host", "before", "now"))


def withdraw() -> str:
    """The release is withdrawn by its name: what was there before it takes over again."""
    told = output("rollback", GROUP, "-e", "stack=xdp_lb", "-e", f"release={NEW}")
    return "\n".join(table(told, "host", "before", "now"))


def await_health(backend: Host, wanted: str) -> None:
    """Wait until both balancers' maps say so of every service of the backend, as bpftool reads them."""
    address = SERVICE.addresses(backend.number)[0]
    for balancer in BALANCERS:
        wait_for(
            lambda on=balancer: healths(on, address) == {wanted},
            f"{balancer.name} to find {backend.name} {wanted}",
        )


def healths(balancer: Host, address: str) -> set[str]:
    """What the balancer's health checks say of the backends at the address."""
    pin = "/sys/fs/bpf/ebpf_fleet/xdp_lb/maps/backends"
    entries = json.loads(ssh(balancer, "bpftool", "-j", "map", "dump", "pinned", pin).stdout)
    words = {0: "unknown", 1: "up", 2: "down"}
    number = int.from_bytes(bytes(int(part) for part in address.split(".")), "little")
    return {
        words[one["formatted"]["value"]["health"]]
        for one in entries
        if one["formatted"]["value"]["family"] == 2
        and one["formatted"]["value"]["address"]["word"][0] == number
    }


EVENTS = (
    Event("a backend is killed, and comes back", kill_and_bring_back),
    Event("a backend is drained", drain),
    Event("it is added again", add),
    Event("the program is upgraded", upgrade),
    Event("the release is rolled back by name", withdraw),
)


def show() -> list[str]:
    """Everything in turn; returns the table."""
    lines = [f"{'':24}" + "".join(f"{backend.name:>12}" for backend in BACKENDS)]
    with step(f"{CURLS} connections to each service"):
        for name, url in VIPS.items():
            answers = served(url)
            columns = "".join(f"{answers[backend.name]:>12}" for backend in BACKENDS)
            lines.append(f"{url:<29}{name:<10}"[:24].ljust(24) + columns + f"  {name}")
    lines += ["", f"{'under load':<38}{'requests':>10}{'failed':>8}{'broken':>8}{'refused':>9}"]
    tables: list[str] = []
    for event in EVENTS:
        with step(event.title):
            with load() as seen:
                time.sleep(0.5)
                said = event.happen()
                time.sleep(0.5)
        if said:
            tables += ["", f"{event.title}:", str(said)]
        lines.append(
            f"{event.title:<38}{seen.requests:>10,}{seen.failed:>8}{seen.broken:>8}{seen.refused:>9}"
        )
        lines += [f"    {line}" for line in seen.trouble]
    return lines + tables
