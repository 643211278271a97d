# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests of releases: a host of their own, as far as releases see one.

The process has its own mounts: an empty bpffs at /sys/fs/bpf, nothing in /run (no lock that others hold, no names of
network namespaces) and nothing that releases keep. Cgroups and network namespaces are made for each test.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import stacks

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import mounts
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import transaction

HERE = Path(__file__).resolve().parent
CLONE_NEWNS = 0x00020000  # linux/sched.h
NOSUID_NODEV = 2 | 4  # linux/mount.h
COVERED = ("/run", "/var/lib/ebpf-fleet", "/usr/local/sbin")
VERSIONS = (1, 2, 3)  # of things.bpf.c; the verifier rejects the last

_numbers = itertools.count(1)


def _name() -> str:
    return f"ebpf-stack-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session", autouse=True)
def privacy() -> None:
    if os.geteuid() != 0:
        pytest.exit("the tests of releases need root: mounts, namespaces, cgroups and bpf(2)")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "no private mount namespace")
    mounts.make_private("/")
    mounts.mount_bpffs("/sys/fs/bpf", 0o700)
    for path in COVERED:
        os.makedirs(path, exist_ok=True)
        if libc.mount(b"tmpfs", path.encode(), b"tmpfs", ctypes.c_ulong(NOSUID_NODEV), b"mode=755"):
            raise OSError(ctypes.get_errno(), f"cannot cover {path}")


@pytest.fixture(scope="session")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """things.bpf.c compiled, by version."""
    directory = tmp_path_factory.mktemp("objects")
    made = {}
    for version in VERSIONS:
        made[version] = directory / f"things{version}.bpf.o"
        flags = [
            "-g",
            "-O2",
            "-target",
            "bpf",
            f"-DVERSION={version}",
            f"-I/usr/include/{os.uname().machine}-linux-gnu",
        ]
        command = ["clang", *flags, "-c", str(HERE / "things.bpf.c"), "-o", str(made[version])]
        subprocess.run(command, check=True)
    return made


@pytest.fixture
def bpffs(privacy: None) -> Iterator[Path]:
    """The bpffs at /sys/fs/bpf; what is pinned in it goes with the test."""
    yield Path("/sys/fs/bpf")
    for path in sorted(Path("/sys/fs/bpf").rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif "." not in path.name:
            path.unlink()


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup of its own."""
    path = Path(mounts.cgroup2(), _name())
    path.mkdir()
    yield path
    for below in sorted(path.rglob("*"), reverse=True):
        if below.is_dir():
            below.rmdir()
    path.rmdir()


@pytest.fixture
def netns(privacy: None) -> Iterator[str]:
    """The name of a network namespace with lo up and a veth pair, `v0` and `v1`."""
    name = _name()
    subprocess.run(["ip", "netns", "add", name], check=True)
    for words in (
        ("link", "set", "lo", "up"),
        ("link", "add", "v0", "type", "veth", "peer", "name", "v1"),
        # Their link-local addresses would come up some seconds later.
        ("link", "set", "v0", "addrgenmode", "none"),
        ("link", "set", "v1", "addrgenmode", "none"),
        ("link", "set", "v0", "up"),
        ("link", "set", "v1", "up"),
    ):
        subprocess.run(["ip", "-n", name, *words], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.fixture
def host(
    objects: dict[int, Path], bpffs: Path, group: Path, netns: str, tmp_path: Path
) -> Iterator[stacks.Host]:
    """A host for whole stacks; what is ours in this process goes with the test."""
    # Addresses that are tentative for a while would look like a change.
    quiet = ["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]
    subprocess.run(["ip", "netns", "exec", netns, *quiet], check=True)
    made = stacks.Host(objects, group, netns, tmp_path)
    yield made
    if os.path.ismount("/sys/fs/bpf"):
        transaction.remove(made.kept, name=stacks.NAME)
