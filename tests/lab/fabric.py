# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab, take it away, say what is there. Each can be repeated, also after a failed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import cgroups
import networks
from cgroups import LabError
from layout import (
    CONTROLLER_NETNS,
    FABRIC_READY,
    HOSTS,
    KNOWN_HOSTS,
    LAB,
    LOGS,
    SSH_CONFIG,
    SSH_MASTERS,
    STATE,
    USER_KEY,
    Host,
)
from shell import run, wait_for

# tool: the Debian package that has it
TOOLS = {
    "clang": "clang",
    "curl": "curl",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "mount": "mount",
    "nc": "netcat-openbsd",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sysctl": "procps",
    "unshare": "util-linux",
    "wrk": "wrk",
}


def up() -> None:
    """Make whatever of the lab is missing."""
    require()
    if not fabric_is_up():
        down()
        make_state()
        networks.make()
        FABRIC_READY.touch()
    missing = [host for host in HOSTS if not init_pid(host)]
    for host in missing:
        start(host)
    for host in missing:
        await_ssh(host)


def down() -> None:
    """Take away every trace. Hosts first, so that whoever talks to them sees them hang up."""
    require_root()
    for host in HOSTS:
        hang_up(host)
        cgroups.remove(cgroups.lab_cgroup() / host.name)
    cgroups.remove(cgroups.lab_cgroup())
    shutil.rmtree(STATE, ignore_errors=True)
    if STATE.exists():
        raise LabError(f"{STATE} could not be removed; see what is left in it")


def again(host: Host) -> None:
    """Replace `host` by a new one on which nothing was ever done."""
    hang_up(host)
    cgroups.remove(cgroups.lab_cgroup() / host.name)
    up()


def is_up() -> bool:
    return fabric_is_up() and all(init_pid(host) for host in HOSTS)


def status() -> list[str]:
    """One line for each part of the lab."""
    lines = [f"{'fabric':<11}{'up' if fabric_is_up() else 'down'}"]
    for host in HOSTS:
        pid = init_pid(host)
        if not pid:
            lines.append(f"{host.name:<11}down")
            continue
        answers = "ssh answers" if ssh_answers(host) else f"ssh does not answer; see {host.log}"
        count = len(cgroups.processes(cgroups.lab_cgroup() / host.name))
        lines.append(f"{host.name:<11}up    {host.ipv4}, init {pid}, {count} processes, {answers}")
    return lines


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the lab makes namespaces and cgroups: run it as root")


def require() -> None:
    require_root()
    os.environ["PATH"] += ":/usr/local/sbin:/usr/sbin:/sbin"
    packages = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if packages:
        raise LabError(f"tools are missing: apt-get install {' '.join(packages)}")
    if "overlay" not in Path("/proc/filesystems").read_text(encoding="ascii"):
        subprocess.run(["modprobe", "overlay"], check=False, capture_output=True)
    cgroups.cgroup2_mount()


def make_state() -> None:
    STATE.mkdir(mode=0o700, exist_ok=True)
    for directory in (LOGS, SSH_MASTERS):
        directory.mkdir(exist_ok=True)
    make_key(USER_KEY, "root@ebpf-fleet-lab")
    for host in HOSTS:
        make_key(host.host_key, host.name)
    KNOWN_HOSTS.write_text("".join(known_host(host) for host in HOSTS), encoding="ascii")
    SSH_CONFIG.write_text(ssh_config(), encoding="ascii")


def make_key(path: Path, comment: str) -> None:
    public = path.with_name(path.name + ".pub")
    if public.exists():
        return
    path.unlink(missing_ok=True)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path))


def known_host(host: Host) -> str:
    public = host.host_key.with_name(host.host_key.name + ".pub").read_text(encoding="ascii")
    return f"{host.name},{host.ipv4},{host.ipv6} {public}"


def ssh_config() -> str:
    """What reaches the hosts: `ssh -F` this. nc hands its connected socket to ssh and ends."""
    hosts = "".join(f"Host {host.name}\n    HostName {host.ipv4}\n\n" for host in HOSTS)
    return f"""{hosts}Host *
    User root
    IdentityFile {USER_KEY}
    IdentitiesOnly yes
    UserKnownHostsFile {KNOWN_HOSTS}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ProxyCommand nsenter --net={CONTROLLER_NETNS} nc -w 5 -F %h %p
    ProxyUseFdpass yes
    ControlMaster auto
    ControlPath {SSH_MASTERS}/%n
    ControlPersist 120
"""


def fabric_is_up() -> bool:
    """Whether the networks were finished and are still there."""
    return FABRIC_READY.exists() and networks.is_up()


def start(host: Host) -> None:
    # What a failed start left behind would be in the way.
    cgroups.remove(cgroups.lab_cgroup() / host.name)
    networks.disconnect(host)
    group = cgroups.make(host.name)
    done = run(sys.executable, str(LAB / "host.py"), host.name, str(group))
    networks.connect(host, int(done.stdout))
    host.pid_file.write_text(done.stdout, encoding="ascii")


def init_pid(host: Host) -> int | None:
    """The process id of the host's init, or None; one that is stale is not in the host's cgroup."""
    if not host.pid_file.exists():
        return None
    pid = int(host.pid_file.read_text(encoding="ascii"))
    return pid if pid in cgroups.processes(cgroups.lab_cgroup() / host.name) else None


def ssh(
    host: Host, *command: str, check: bool = True, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return run("ssh", "-F", str(SSH_CONFIG), host.name, *command, check=check, stdin=stdin)


def ssh_answers(host: Host) -> bool:
    options = ["-o", "ConnectTimeout=10", "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    return (
        run("ssh", "-F", str(SSH_CONFIG), *options, host.name, "true", check=False).returncode == 0
    )


def await_ssh(host: Host) -> None:
    def answers() -> bool:
        if not init_pid(host):
            raise LabError(
                f"{host.name} did not start:\n{host.log.read_text(encoding='utf-8')[-1500:]}"
            )
        return ssh_answers(host)

    wait_for(answers, f"ssh to {host.name} (see {host.log})")


def hang_up(host: Host) -> None:
    """Close the ssh connection that is kept for the next command."""
    if SSH_CONFIG.exists():
        run("ssh", "-F", str(SSH_CONFIG), "-O", "exit", host.name, check=False)
