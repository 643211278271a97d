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
from pathlib import Path

import fabric
import figures
import plays
import pytest
from layout import HOSTS, LAB, SSH_CONFIG, WEB, Host
from witness import NOBODY, NONE, lab, must, on, traces

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
CGROUP = "/sys/fs/cgroup/web"
GROUP = "sockmap_accelerator"
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


def attached(host: Host) -> list[int]:
    """Ids of the programs attached to the web cgroup of `host`, as bpftool says."""
    text = on(host, "bpftool", "-j", "cgroup", "show", CGROUP)
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
    """Programs go a little after their last reference; what is left after ten seconds."""
    deadline = time.monotonic() + 10
    while (
        left := [one for one in programs if program_exists(one)]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


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
    one, two, _three = WEB
    on(one, "touch /etc/lab-was-here /run/lab-was-here /sys/fs/cgroup/../../../var/lab-was-here")
    on(one, "mkdir /sys/fs/bpf/lab-was-here /sys/fs/cgroup/lab-was-here")
    for path in ("/etc", "/run", "/var", "/sys/fs/bpf", "/sys/fs/cgroup"):
        assert not Path(path, "lab-was-here").exists()
        assert "lab-was-here" not in on(two, "ls", path)


@pytest.mark.usefixtures("_lab")
def test_hosts_reach_each_other_over_both_families() -> None:
    one, two, _three = WEB
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
    nobody = lab("up", through=NOBODY)
    assert nobody.returncode == 1
    assert "run it as root" in nobody.stderr
    toolless = lab("up", env={"PATH": "/nonexistent"})
    assert toolless.returncode == 1
    assert "apt-get install" in toolless.stderr
    assert "openssh-client" in toolless.stderr
    assert lab("sideways").returncode == 2
    missing = lab("report")
    assert missing.returncode == 1
    assert "make lab" in missing.stderr
    assert traces() == NONE


@pytest.mark.usefixtures("_lab")
def test_the_whole_way_there_and_back() -> None:
    keepalive = figures.CELLS[1]
    plain = [figures.sample(host, keepalive) for host in WEB]
    assert download(WEB[0]) == BIG
    assert download(WEB[0], "--limit-rate", "8M") == BIG

    with traffic(WEB[0]), traffic(WEB[1]), traffic(WEB[2]):
        first = plays.play("site", GROUP)
    assert {recap.host for recap in first} >= {host.name for host in WEB}
    assert all(recap.changed for recap in first if recap.host.startswith("web"))
    plays.must_change_nothing(plays.play("site", GROUP))
    plays.play("verify", GROUP)
    programs = []
    for host in WEB:
        assert attached(host), f"bpftool sees no program on {CGROUP} of {host.name}"
        assert pins(host)
        programs += attached(host)

    figures.prepare(WEB)
    for host, was in zip(WEB, plain):
        # One of the two hops of each 16 KiB body leaves lo; the other, to wrk, stays.
        assert figures.sample(host, keepalive).lo_bytes < 0.6 * was.lo_bytes
    assert download(WEB[0]) == BIG
    assert download(WEB[0], "--limit-rate", "8M") == BIG

    with traffic(WEB[0]), traffic(WEB[1]), traffic(WEB[2]):
        back = plays.play("rollback", GROUP, "-e", "to=none")
        assert all(recap.changed for recap in back if recap.host.startswith("web"))
        plays.must_change_nothing(plays.play("rollback", GROUP, "-e", "to=none"))
    for host, was in zip(WEB, plain):
        assert attached(host) == []
        assert pins(host) == []
        assert figures.sample(host, keepalive).lo_bytes > 0.95 * was.lo_bytes
    figures.prepare(WEB)
    assert wait_until_gone(programs) == []


def test_down_takes_accelerated_hosts_away() -> None:
    try:
        must("up")
        plays.play("site", GROUP)
        programs = [program for host in WEB for program in attached(host)]
        assert programs
    finally:
        must("down")
    assert wait_until_gone(programs) == []
    assert traces() == NONE
