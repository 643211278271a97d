# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PID 1 of one lab host: makes the host around itself, starts its services, then reaps.

    host.py NAME CGROUP      prints the process id of the host's init, as the caller sees it

The host has mount, UTS, IPC, network, PID and cgroup namespaces of its own. Its root is an overlay
of this machine's root: the same programs, but every change stays in the host and goes with it.
Nothing is mounted outside the host's mount namespace, so all of it is gone when this process ends.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from layout import FILES, HOSTS, REPOSITORY, USER_KEY, Host, Kind

# UAPI linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
ALL = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET

# File systems with a machine's own files; where /usr or /var is one, it is overlaid like the root.
REAL_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs"}


def main() -> None:
    host = next(host for host in HOSTS if host.name == sys.argv[1])
    Path(sys.argv[2], "cgroup.procs").write_text("0", encoding="ascii")  # 0: who writes
    unshare(ALL)
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        os._exit(0)
    os.setsid()
    to_log(host)
    key = USER_KEY.with_suffix(".pub").read_text(encoding="ascii")
    host_key = host.host_key.read_text(encoding="ascii")
    root = make_root(host)
    copy_files(root)
    configure(host, root, key, host_key)
    enter(root)
    run("hostname", host.name)
    run("ip", "link", "set", "lo", "up")
    tune_network(host)
    run("/usr/local/sbin/web", "start")
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/lab_sshd_config"])
    reap()


def unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def to_log(host: Host) -> None:
    """From here on the host's console is its log file."""
    log = os.open(host.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def make_root(host: Host) -> Path:
    """Overlay this machine's files and mount what a host has below /."""
    run("mount", "--make-rprivate", "/")
    host.root.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "host", str(host.root))
    root = host.root / "root"
    root.mkdir()
    overlay(Path("/"), host.root / "0", root)
    for number, mounted in enumerate(other_trees(), start=1):
        overlay(mounted, host.root / str(number), root / mounted.relative_to("/"))
    for kind, where in (
        ("proc", "proc"),
        ("sysfs", "sys"),
        ("cgroup2", "sys/fs/cgroup"),
        ("bpf", "sys/fs/bpf"),
        ("tmpfs", "run"),
        ("tmpfs", "tmp"),
    ):
        run("mount", "-t", kind, kind, str(root / where))
    (root / "tmp").chmod(0o1777)
    show_checkout(host, root)
    run("mount", "--rbind", "/dev", str(root / "dev"))
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "pts", str(root / "dev/pts"))
    return root


def show_checkout(host: Host, root: Path) -> None:
    """A host may converge itself by what this checkout has, wherever that is."""
    where = root / REPOSITORY.relative_to("/")
    if not (where / "galaxy.yml").exists():
        where.mkdir(parents=True, exist_ok=True)
        overlay(REPOSITORY, host.root / "checkout", where)


def overlay(lower: Path, scratch: Path, where: Path) -> None:
    for name in ("upper", "work"):
        (scratch / name).mkdir(parents=True)
    layers = f"lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work"
    run("mount", "-t", "overlay", "-o", layers, "overlay", str(where))


def other_trees() -> list[Path]:
    """Mount points, other than the root, that hold programs or their data."""
    mounts = [line.split()[:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    tops = ("/usr", "/var", "/opt", "/etc", "/srv")
    found = {
        Path(where)
        for _source, where, kind in mounts
        if kind in REAL_FILE_SYSTEMS and where.startswith(tops) and Path(where).is_dir()
    }
    return sorted(found)


def copy_files(root: Path) -> None:
    """files/ is laid out as the host's root is."""
    for source in FILES.rglob("*"):
        target = root / source.relative_to(FILES)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copy(source, target)


def configure(host: Host, root: Path, user_key: str, host_key: str) -> None:
    write(root / "etc/hostname", f"{host.name}\n")
    names = "".join(f"{other.ipv4} {other.name}\n{other.ipv6} {other.name}\n" for other in HOSTS)
    write(root / "etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{names}")
    write(root / "etc/nginx/lab/servers", " ".join(host.servers))
    write(root / "etc/ssh/lab_host_key", host_key, mode=0o600)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    write(root / "root/.ssh/authorized_keys", user_key, mode=0o600)
    # What root has set up on this machine is not the host's, and runs with every command over ssh.
    write(root / "root/.bashrc", "")
    unlock_root(root / "etc/shadow")
    write(root / "srv/16k.txt", "0123456789abcde\n" * 1024)
    write(root / "srv/16m.bin", "")
    os.truncate(root / "srv/16m.bin", 16 << 20)
    (root / "run/sshd").mkdir()
    (root / "var/log/nginx").mkdir(parents=True, exist_ok=True)


def unlock_root(shadow: Path) -> None:
    """sshd refuses a locked account even with a key; `*` is no password, yet not locked."""
    text = shadow.read_text(encoding="utf-8")
    write(shadow, re.sub(r"^root:[^:]*:", "root:*:", text, flags=re.MULTILINE), mode=0o640)


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def enter(root: Path) -> None:
    """Make `root` the root and let go of the machine's (pivot_root(2), the `. .` idiom)."""
    os.chdir(root)
    run("pivot_root", ".", ".")
    run("umount", "-l", ".")
    os.chdir("/")
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def tune_network(host: Host) -> None:
    """Short connections use up the ports of one address pair: more of them, and re-use at once.

    Not on a balancer, whose own connections must keep out of what `nat` uses (xdp_lb_nat_ports).
    """
    net = Path("/proc/sys/net/ipv4")
    if host.kind is not Kind.BALANCER:
        write_sysctl(net / "ip_local_port_range", "10240 65535")
    write_sysctl(net / "tcp_tw_reuse", "1")


def write_sysctl(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")


def reap() -> None:
    """The one duty of PID 1, which stays when nobody is left. Killed from outside, it takes all with it."""
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
