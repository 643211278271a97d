# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests could leave on the machine: taken before, compared after."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path

# Where a host stores releases. Tests mount something of their own over it, and make it for that.
MOUNT_POINT = Path("/var/lib/ebpf-fleet")
PATIENCE = 10.0  # seconds: the kernel frees programs and namespaces a little after their last user


def mounts(kind: str) -> list[str]:
    """Where file systems of this type are mounted, in this mount namespace."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[2] == kind]


def bpf_objects(kind: str) -> set[str]:
    """The kernel's programs or links, without systemd's, which come and go with its services."""
    command = ["bpftool", "-j", kind, "show"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {
        f"BPF {kind} {entry['id']} ({entry.get('type')} {entry.get('name', '')})"
        for entry in json.loads(shown or "[]")
        if isinstance(entry, dict) and "id" in entry and not entry.get("name", "").startswith("sd_")
    }


def virtual_machines() -> set[str]:
    """Processes of QEMU, whoever started them."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        if Path(words[0].decode(errors="replace")).name.startswith("qemu-system"):
            found.add(f"virtual machine, process {path.parent.name}")
    return found


def snapshot() -> set[str]:
    """Everything there is, each in words that name it."""
    found = {f"bpffs on {place}" for place in mounts("bpf")}
    found |= {f"network namespace {path.name}" for path in Path("/run/netns").glob("*")}
    found |= {f"interface {path.name}" for path in Path("/sys/class/net").iterdir()}
    found |= {f"directory {path}" for path in Path("/var/tmp").glob("ebpf-fleet-*")}
    found |= {f"directory {path}" for path in (MOUNT_POINT,) if path.exists()}
    for root in mounts("cgroup2"):
        found |= {f"cgroup {path}" for path in Path(root).glob("*/")}
    return found | virtual_machines() | bpf_objects("prog") | bpf_objects("link")


def left_since(before: set[str]) -> list[str]:
    """What is there now and was not before, once the kernel had time to clean up."""
    if f"directory {MOUNT_POINT}" not in before:
        with suppress(OSError):  # not there, or something is in it, which the snapshot says
            MOUNT_POINT.rmdir()
    deadline = time.monotonic() + PATIENCE
    while True:
        left = snapshot() - before
        if not left or time.monotonic() > deadline:
            return sorted(left)
        time.sleep(0.5)
