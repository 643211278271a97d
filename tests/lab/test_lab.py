# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself, end to end: what it makes is separate, converges, and is gone afterwards.

Needs root, and no lab that is up. The witnesses are the kernel's: bpftool, /proc, cgroupfs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cgroups
import fabric
import figures
import plays
import pytest
from layout import HOSTS, LAB, NAME, SSH_CONFIG, STATE, Host

# Requests over connections that stay open, until told to stop; the first that fails ends it.
TRAFFIC = """
import http.client, os, time
clients = [http.client.HTTPConnection("127.0.0.1", 8080) for _ in range(8)]
count = 0
while not os.path.exists("/tmp/enough"):
    for client in clients:
        client.request("GET", "/16k.txt")
        answer = client.getresponse()
        assert answer.status == 200 and len(answer.read()) == 16384
        count += 1
    time.sleep(0.02)
print(count)
"""
BIG = str(16 << 20)
PINS = "/sys/fs/bpf/ebpf_fleet"
WEB = "/sys/fs/cgroup/web"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


@dataclass(frozen=True)
class Traces:
    """What of the lab can be found on the machine; others may use it at the same time."""

    mounts: tuple[str, ...]
    links: tuple[str, ...]
    named_netns: tuple[str, ...]
    cgroup: bool
    state: bool
    processes: tuple[int, ...]


NONE = Traces((), (), (), False, False, ())


def traces() -> Traces:
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    addresses = [path.read_text() for path in Path("/sys/class/net").glob("*/address")]
    names = out("ip", "netns", "list").split()
    return Traces(
        mounts=tuple(line for line in mounts if NAME in line),
        links=tuple(address for address in addresses if address.startswith("02:eb:0f:")),
        named_netns=tuple(name for name in names if name.startswith(("web", NAME))),
        cgroup=cgroups.lab_cgroup().exists(),
        state=STATE.exists(),
        processes=tuple(lab_processes()),
    )


def out(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lab(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, str(LAB / "lab.py"), command]
    return subprocess.run(arguments, check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def must(command: str) -> str:
    done = lab(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def on(host: Host, *command: str) -> str:
    return fabric.ssh(host, *command).stdout


def lab_processes() -> list[int]:
    """Live processes that mention the lab or are in its cgroup, wherever they are."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes()
            group = (directory / "cgroup").read_text(encoding="ascii")
            state = (directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        ours = b"/run/ebpf-fleet-lab" in command or f"0::/{NAME}" in group
        if ours and state != "Z":
            found.append(int(directory.name))
    return found


def attached(host: Host) -> list[int]:
    """Ids of the programs attached to the web cgroup of `host`, as bpftool says."""
    text = on(host, "bpftool", "-j", "cgroup", "show", WEB)
    return [program["id"] for program in json.loads(text.strip() or "[]")]


def pins(host: Host) -> list[str]:
    return on(host, f"test ! -e {PINS} || find {PINS} -type f").split()


@contextmanager
def traffic(host: Host) -> Iterator[None]:
    """The services of `host` answer every request for as long as the block lasts."""
    on(host, "rm", "-f", "/tmp/enough")
    command = ["ssh", "-F", str(SSH_CONFIG), host.name, "python3", "-"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    process.stdin.write(TRAFFIC)
    process.stdin.close()
    process.stdin = None
    try:
        yield
    finally:
        on(host, "touch", "/tmp/enough")
        count, _errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert int(count) > 0


def download(host: Host, *options: str) -> str:
    """How many bytes of a body larger than all buffers come through the proxy within 20 seconds."""
    curl = ["curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{size_download}", *options]
    return fabric.ssh(host, *curl, "http://127.0.0.1:8080/16m.bin", check=False).stdout


def program_exists(program: int) -> bool:
    done = subprocess.run(
        ["bpftool", "prog", "show", "id", str(program)], capture_output=True, check=False
    )
    return done.returncode == 0


def wait_until_gone(programs: list[int]) -> list[int]:
    """Programs go a little after their last reference; what is left after two seconds."""
    deadline = time.monotonic() + 2
    while (
        left := [one for one in programs if program_exists(one)]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.fixture(scope="module", autouse=True)
def _no_lab() -> None:
    if traces() != NONE:
        pytest.exit(f"a lab is up: take it down first (make lab-down). {traces()}", returncode=1)


@pytest.fixture
def _lab() -> Iterator[None]:
    """A lab that is up; afterwards it is down, without a trace."""
    try:
        must("up")
        yield
    finally:
        must("down")
    assert traces() == NONE


@pytest.mark.usefixtures("_lab")
def test_every_host_is_a_machine_of_its_own() -> None:
    everywhere = []
    for host in HOSTS:
        everywhere.append([on(host, "readlink", f"/proc/self/ns/{name}") for name in NAMESPACES])
        assert on(host, "hostname").strip() == host.name
        assert on(host, "stat", "-f", "-c", "%T", "/sys/fs/bpf", "/sys/fs/cgroup").split() == [
            "bpf_fs",
            "cgroup2fs",
        ]
        assert "0::/\n" in on(host, "cat", "/proc/self/cgroup")
        assert on(host, "ps", "-o", "pid=", "-C", "sshd").split(), "sshd is a process of this host"
    everywhere.append([os.readlink(f"/proc/self/ns/{name}") + "\n" for name in NAMESPACES])
    for kind in zip(*everywhere):
        assert len(set(kind)) == len(everywhere)


@pytest.mark.usefixtures("_lab")
def test_what_a_host_writes_stays_there() -> None:
    one, two, _three = HOSTS
    on(one, "touch /etc/lab-was-here /run/lab-was-here /sys/fs/cgroup/../../../var/lab-was-here")
    on(one, "mkdir /sys/fs/bpf/lab-was-here /sys/fs/cgroup/lab-was-here")
    for path in ("/etc", "/run", "/var", "/sys/fs/bpf", "/sys/fs/cgroup"):
        assert not Path(path, "lab-was-here").exists()
        assert "lab-was-here" not in on(two, "ls", path)


@pytest.mark.usefixtures("_lab")
def test_hosts_reach_each_other_over_both_families() -> None:
    one, two, _three = HOSTS
    for address in (two.ipv4, f"[{two.ipv6}]"):
        assert on(one, "curl", "-sg", f"http://{address}:8080/") == "hello from web2\n"


@pytest.mark.usefixtures("_lab")
def test_up_again_changes_nothing_and_repairs_what_is_broken() -> None:
    inits = [fabric.init_pid(host) for host in HOSTS]
    must("up")
    assert [fabric.init_pid(host) for host in HOSTS] == inits
    broken = inits[1]
    assert broken is not None
    os.kill(broken, signal.SIGKILL)
    assert lab("status").returncode == 1
    must("up")
    assert lab("status").returncode == 0
    assert fabric.init_pid(HOSTS[0]) == inits[0]
    assert fabric.init_pid(HOSTS[1]) != broken


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.4, 0.8])
def test_an_up_killed_at_any_point_leaves_what_up_and_down_can_handle(seconds: float) -> None:
    command = [sys.executable, str(LAB / "lab.py"), "up"]
    for follow_up in ("down", "up"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
        try:
            assert "Traceback" not in lab("status").stderr
            must(follow_up)
        finally:
            must("down")
        assert traces() == NONE


def test_it_refuses_clearly() -> None:
    nobody = lab("up", user=65534, group=65534, extra_groups=[])
    assert nobody.returncode == 1
    assert "run it as root" in nobody.stderr
    toolless = lab("up", env={"PATH": "/nonexistent"})
    assert toolless.returncode == 1
    assert "apt-get install" in toolless.stderr
    assert "openssh-client" in toolless.stderr
    assert lab("sideways").returncode == 2
    assert traces() == NONE


@pytest.mark.usefixtures("_lab")
def test_the_whole_way_there_and_back() -> None:
    keepalive = figures.CELLS[1]
    plain = [figures.sample(host, keepalive) for host in HOSTS]
    assert download(HOSTS[0]) == BIG
    assert download(HOSTS[0], "--limit-rate", "8M") == BIG

    with traffic(HOSTS[0]), traffic(HOSTS[1]), traffic(HOSTS[2]):
        first = plays.play("site")
    assert {recap.host for recap in first} >= {host.name for host in HOSTS}
    assert all(recap.changed for recap in first if recap.host.startswith("web"))
    plays.must_change_nothing(plays.play("site"))
    plays.play("verify")
    programs = []
    for host in HOSTS:
        assert attached(host), f"bpftool sees no program on {WEB} of {host.name}"
        assert pins(host)
        programs += attached(host)

    figures.prepare(HOSTS)
    for host, was in zip(HOSTS, plain):
        # One of the two hops of each 16 KiB body leaves lo; the other, to wrk, stays.
        assert figures.sample(host, keepalive).lo_bytes < 0.6 * was.lo_bytes
    assert download(HOSTS[0]) == BIG
    assert download(HOSTS[0], "--limit-rate", "8M") == BIG

    with traffic(HOSTS[0]), traffic(HOSTS[1]), traffic(HOSTS[2]):
        back = plays.play("rollback")
        assert all(recap.changed for recap in back if recap.host.startswith("web"))
        plays.must_change_nothing(plays.play("rollback"))
    for host, was in zip(HOSTS, plain):
        assert attached(host) == []
        assert pins(host) == []
        assert figures.sample(host, keepalive).lo_bytes > 0.95 * was.lo_bytes
    figures.prepare(HOSTS)
    assert wait_until_gone(programs) == []


def test_down_takes_accelerated_hosts_away() -> None:
    try:
        must("up")
        plays.play("site")
        programs = [program for host in HOSTS for program in attached(host)]
        assert programs
    finally:
        must("down")
    assert wait_until_gone(programs) == []
    assert traces() == NONE
