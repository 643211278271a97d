# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ssh to the machines of a run: keys, known hosts, and how to wait for a machine to answer."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from declared import Machine
from host import output
from layout import Run
from problem import Problem

# Emulated, on a busy host; a machine is there in half a minute where nothing else runs.
BOOT_SECONDS = 600
PERSIST = ("-o", "ControlMaster=auto", "-o", "ControlPersist=300s")


def make_key(run: Run) -> None:
    """The key that this run's machines let in, if there is none."""
    if not run.key.exists():
        output(
            "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", run.namespace, "-f", str(run.key)
        )
    run.ssh_masters.mkdir(exist_ok=True)


def configure(run: Run, ports: dict[str, tuple[int, str]]) -> None:
    """Let `ssh -F` find machines by name: port and host key of each."""
    run.known_hosts.write_text(
        "".join(f"[127.0.0.1]:{port} {key}\n" for port, key in ports.values()), encoding="ascii"
    )
    hosts = "".join(f"Host {name}\n    Port {port}\n" for name, (port, _key) in ports.items())
    common = f"""Host *
    HostName 127.0.0.1
    User root
    IdentityFile {run.key}
    IdentitiesOnly yes
    UserKnownHostsFile {run.known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
    LogLevel ERROR
    ConnectTimeout 60
    ServerAliveInterval 20
    ServerAliveCountMax 6
"""
    run.ssh_config.write_text(hosts + common, encoding="ascii")


def ssh(run: Run, machine: str, command: str, timeout: float = 300) -> str:
    """What a command prints on a machine. Raises Problem when it fails."""
    return output("ssh", "-F", str(run.ssh_config), machine, command, timeout=timeout)


class Panic(Problem):
    """A machine whose kernel has given up while it was booted."""


def wait(run: Run, machine: Machine, port: int, alive: Path, said_before: int) -> None:
    """Until the machine's ssh server answers.

    `alive` is there while its QEMU is; `said_before` is how many bytes of its console are older.
    Raises Panic, or Problem when it stops or takes too long, with the end of its console.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    while not _answers(port):
        if not alive.exists():
            raise Problem(_obituary(run, machine, "stopped before it could be reached"))
        if b"Kernel panic" in run.console(machine.name).read_bytes()[said_before:]:
            raise Panic(_obituary(run, machine, "has panicked"))
        if time.monotonic() > deadline:
            raise Problem(_obituary(run, machine, f"not reached within {BOOT_SECONDS} seconds"))
        time.sleep(0.5)


def _answers(port: int) -> bool:
    """Whether an ssh server says hello; QEMU takes connections before there is one."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _obituary(run: Run, machine: Machine, what: str) -> str:
    console = run.console(machine.name)
    lines = console.read_text(encoding="utf-8", errors="replace").splitlines()
    tail = "\n".join(f"    {line}" for line in lines[-40:]) or "    (it said nothing)"
    return f"machine {machine.name} {what}; the end of its console, {console}:\n{tail}"
