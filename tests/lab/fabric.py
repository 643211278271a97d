# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab, take it away, say what is there. Each can be repeated, also after a failed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cgroups
from cgroups import LabError
from layout import (
    CONTROLLER_IPV4,
    CONTROLLER_IPV6,
    CONTROLLER_MAC,
    CONTROLLER_NETNS,
    FABRIC_NETNS,
    FABRIC_READY,
    HOSTS,
    IPV4_PREFIX,
    IPV6_PREFIX,
    KNOWN_HOSTS,
    LAB,
    LOGS,
    SSH_CONFIG,
    SSH_MASTERS,
    STATE,
    USER_KEY,
    Host,
)

START_SECONDS = 15.0

# tool: the Debian package that has it
TOOLS = {
    "clang": "clang",
    "ip": "iproute2",
    "mount": "mount",
    "nc": "netcat-openbsd",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "pivot_root": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "unshare": "util-linux",
    "wrk": "wrk",
}


def up() -> None:
    """Make whatever of the lab is missing."""
    require()
    if not fabric_is_up():
        down()
        make_state()
        make_fabric()
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
    """Whether the fabric was finished and both of its namespaces are still the lab's."""
    if not FABRIC_READY.exists():
        return False
    alive = set(cgroups.processes(cgroups.lab_cgroup()))
    return all(holder_pid(netns) in alive for netns in (FABRIC_NETNS, CONTROLLER_NETNS))


def make_fabric() -> None:
    """A bridge in one namespace; the controller, from where hosts are reached, in another."""
    hold("fabric", FABRIC_NETNS)
    hold("controller", CONTROLLER_NETNS)
    inside(FABRIC_NETNS, "ip", "link", "set", "lo", "up")
    inside(FABRIC_NETNS, "ip", "link", "add", "br0", "type", "bridge", "stp_state", "0")
    inside(FABRIC_NETNS, "ip", "link", "set", "br0", "up")
    plug(
        "controller", holder_pid(CONTROLLER_NETNS), CONTROLLER_MAC, CONTROLLER_IPV4, CONTROLLER_IPV6
    )
    FABRIC_READY.touch()


def hold(name: str, netns: Path) -> None:
    """Start a process that keeps a network namespace; `netns` leads there while it runs."""
    script = f"echo 0 > {cgroups.make(name)}/cgroup.procs; exec unshare --net sleep infinity"
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        ["sh", "-c", script], stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )
    path = Path(f"/proc/{process.pid}/ns/net")
    ours = os.readlink("/proc/self/ns/net")
    wait_for(lambda: os.readlink(path) != ours, f"the {name} namespace")
    netns.symlink_to(path)


def holder_pid(netns: Path) -> int:
    return int(Path(os.readlink(netns)).parts[2])


def plug(name: str, pid: int, mac: str, ipv4: str, ipv6: str) -> None:
    """A cable from the bridge to the network namespace of process `pid`, where it is eth0."""
    netns = Path(f"/proc/{pid}/ns/net")
    peer = ["peer", "name", "eth0", "address", mac, "netns", str(pid)]
    inside(FABRIC_NETNS, "ip", "link", "add", name, "type", "veth", *peer)
    inside(FABRIC_NETNS, "ip", "link", "set", name, "master", "br0", "up")
    inside(netns, "ip", "link", "set", "lo", "up")
    inside(netns, "ip", "address", "add", f"{ipv4}/{IPV4_PREFIX}", "dev", "eth0")
    if Path("/proc/net/if_inet6").exists():
        inside(netns, "ip", "address", "add", f"{ipv6}/{IPV6_PREFIX}", "dev", "eth0", "nodad")
    inside(netns, "ip", "link", "set", "eth0", "up")


def start(host: Host) -> None:
    # What a failed start left behind would be in the way.
    cgroups.remove(cgroups.lab_cgroup() / host.name)
    inside(FABRIC_NETNS, "ip", "link", "delete", host.name, check=False)
    group = cgroups.make(host.name)
    done = run(sys.executable, str(LAB / "host.py"), host.name, str(group))
    plug(host.name, int(done.stdout), host.mac, host.ipv4, host.ipv6)
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
    options = ["-o", "ConnectTimeout=2", "-o", "BatchMode=yes", "-o", "ControlPath=none"]
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


def inside(netns: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return run("nsenter", f"--net={netns}", *command, check=check)


def run(*command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, check=False, capture_output=True, text=True, input=stdin)
    if check and done.returncode:
        raise LabError(f"{' '.join(command)} failed ({done.returncode}):\n{done.stderr.strip()}")
    return done


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"gave up waiting for {what}; `lab.py down` cleans up")
        time.sleep(0.1)
