# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Twelve hosts for the roll-out, and what tests do with them: run playbooks, and ask the kernel.

The hosts are those of tests/lab, without services. The witness of a host's release is bpftool in the
host's mount namespace: which program is attached, and which port the policy has.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
os.environ["EBPF_FLEET_LAB"] = "rollout"  # read by layout
sys.path.insert(0, str(REPOSITORY / "tests" / "lab"))

import fabric  # noqa: E402
import plays  # noqa: E402
from inside import inside  # noqa: E402
from layout import HOSTS, LOGS, Host  # noqa: E402

NAMES = [host.name for host in HOSTS]
CGROUP = "/sys/fs/cgroup/web"
POLICY = "/sys/fs/bpf/ebpf_fleet/sockmap/maps/policy_ports"
STORE = "/var/lib/ebpf-fleet/sockmap"
# The port that each release accelerates: what makes it differ from the others.
PORTS = {"v1": 9001, "v2": 9002, "v3": 9003, "v4": 9004}
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)


@dataclass(frozen=True)
class Run:
    """What ansible-playbook came to. `changed` by host, as its recap says."""

    status: int
    output: str

    @property
    def changed(self) -> dict[str, int]:
        return {found[1]: int(found[2]) for found in RECAP.finditer(self.output)}

    def table(self, *header: str) -> dict[str, list[str]]:
        """The last table with this header: the cells of each row, by the first one."""
        rows = {}
        for line in plays.table(self.output, *header)[1:]:
            name, *cells = re.split(r"  +", line)
            rows[name] = cells
        return rows


def command(playbook: str, *options: str) -> list[str]:
    return [
        plays.ansible_playbook(),
        *("-i", str(HERE / "inventory")),
        f"ebpf.fleet.{playbook}",
        *options,
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}


def run(playbook: str, *options: str) -> Run:
    """Run ebpf.fleet.`playbook` on the hosts; the output is kept in the lab's log, too."""
    words = command(playbook, *options)
    done = subprocess.run(
        words, check=False, capture_output=True, text=True, env=environment(), timeout=400
    )
    with (LOGS / f"{playbook}.log").open("a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}\nstatus {done.returncode}\n")
    return Run(done.returncode, done.stdout + done.stderr)


def declare(release: str) -> list[str]:
    """Options that declare the release."""
    variables = {
        "sockmap_accelerator_release": release,
        "sockmap_accelerator_ports": [PORTS[release]],
    }
    return ["-e", json.dumps(variables)]


@dataclass(frozen=True)
class Seen:
    """What a host's kernel and its store hold. `port` is the policy's, 0 without one."""

    programs: tuple[int, ...]
    port: int
    current: str

    @property
    def release(self) -> str:
        """The release that runs, by the kernel and the store both; "" for none."""
        if not self.programs and not self.port and not self.current:
            return ""
        found = [name for name, port in PORTS.items() if port == self.port]
        assert self.programs, self
        assert found == [self.current], self
        return self.current


def see(host: Host) -> Seen:
    attached = inside(host, "bpftool", "-j", "cgroup", "show", CGROUP)
    dumped = inside(host, "bpftool", "-j", "map", "dump", "pinned", POLICY, check=False)
    entries = json.loads(dumped.strip() or "[]")
    ports = (
        [entry["formatted"]["key"]["port"] for entry in entries]
        if isinstance(entries, list)
        else []
    )
    current = inside(host, "readlink", f"{STORE}/current", check=False).strip()
    return Seen(
        programs=tuple(program["id"] for program in json.loads(attached.strip() or "[]")),
        port=int.from_bytes(int(ports[0]).to_bytes(2, "little"), "big") if ports else 0,
        current=Path(current).name,
    )


def releases() -> dict[str, str]:
    """The release of every host that runs one, asked of its kernel."""
    return {host.name: see(host).release for host in HOSTS}


def expect(*spans: tuple[Sequence[str], str]) -> dict[str, str]:
    return {name: release for names, release in spans for name in names}


def kill_sshd(host: Host) -> None:
    """Nobody gets in, and who is in is thrown out."""
    inside(host, "killall", "-9", "sshd", check=False)


def start_sshd(host: Host) -> None:
    inside(host, "/usr/sbin/sshd", "-f", "/etc/ssh/lab_sshd_config")
    fabric.hang_up(host)
    fabric.await_ssh(host)
