# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is on the machine, told by others than the collection: bpftool, ip, tc, /proc."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from typing import Any

BPFFS = "/sys/fs/bpf"
CGROUP2_TYPES = ("cgroup2",)
# __NR_bpf; enum bpf_cmd and bpf_attach_type of include/uapi/linux/bpf.h
BPF = {"x86_64": 321, "aarch64": 280}
PROG_QUERY = 16
HOOKS = {"cgroup_inet_egress": 1, "cgroup_sock_ops": 3, "tcx_ingress": 46, "tcx_egress": 47}

State = dict[str, Any]


def say(*words: str, given: str = "") -> str:
    """What a program writes. Raises RuntimeError with its complaint when it fails."""
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def bpftool(*words: str) -> Any:
    """bpftool's answer."""
    text = say("bpftool", "--json", *words).strip()
    return json.loads(text) if text else None


def prog(pin: str) -> dict[str, Any]:
    """The program at a pin."""
    return dict(bpftool("prog", "show", "pinned", pin))


def metadata(program: dict[str, Any]) -> dict[str, str]:
    """The provenance of a program; bpftool before 5.10 (libbpf 0.2) does not show it."""
    return dict(program.get("metadata") or {})


def link(pin: str) -> dict[str, Any]:
    """The link at a pin; of all, as `link show pinned` of bpftool 7.5 fails after its answer."""
    (found,) = (
        each for each in bpftool("--bpffs", "link", "show") if pin in each.get("pinned", ())
    )
    return dict(found)


def cgroup(path: str, hook: str) -> list[int]:
    """The ids of the programs at a hook of a cgroup.

    bpftool 7.1 asks for more than Linux before 6.1 tells, and shows nothing there: then the kernel
    is asked without it.
    """
    with contextlib.suppress(RuntimeError):
        shown = bpftool("cgroup", "show", path) or []
        return sorted(each["id"] for each in shown if aliased(each["attach_type"]) == aliased(hook))
    target = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sorted(_asked(target, HOOKS[hook]))
    finally:
        os.close(target)


def _asked(target: int, hook: int) -> list[int]:
    """The kernel's own answer (BPF_PROG_QUERY, ``union bpf_attr.query``)."""
    room = 16
    found = (ctypes.c_uint32 * room)()
    numbers = (target, hook, 0, 0, ctypes.addressof(found), room)
    attr = ctypes.create_string_buffer(struct.pack("=IIIIQI", *numbers).ljust(64, b"\0"), 64)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(BPF[os.uname().machine], PROG_QUERY, attr, 64):
        raise RuntimeError(f"query hook {hook}: {os.strerror(ctypes.get_errno())}")
    return list(found[: struct.unpack_from("=I", attr, 24)[0]])


def aliased(hook: str) -> str:
    """bpftool before 6.0 calls some hooks otherwise."""
    older = {
        "ingress": "cgroup_inet_ingress",
        "egress": "cgroup_inet_egress",
        "sock_ops": "cgroup_sock_ops",
    }
    return older.get(hook, hook)


def xdp(interface: str) -> dict[str, int]:
    """Mode to program id, as ip sees it: 1 is native, 2 is generic."""
    (shown,) = json.loads(say("ip", "-json", "-details", "link", "show", "dev", interface))
    found = shown.get("xdp")
    if not found:
        return {}
    attached = found.get("attached") or [found]
    modes = {1: "native", 2: "generic", 3: "offload"}
    return {modes[each["mode"]]: each["prog"]["id"] for each in attached}


def filters(interface: str, direction: str) -> list[int]:
    """The ids of the programs of tc filters, in order."""
    shown = json.loads(say("tc", "-json", "filter", "show", "dev", interface, direction) or "[]")
    return [each["options"]["prog"]["id"] for each in shown if "prog" in each.get("options", {})]


def tcx(interface: str, direction: str) -> list[int]:
    """The ids of the programs that TCX links hold; bpftool before 7.3 does not know of them."""
    shown = bpftool("net", "show", "dev", interface)[0]["tc"]
    found = [each["prog_id"] for each in shown if each["kind"] == f"tcx/{direction}"]
    return found or _asked(socket.if_nametoindex(interface), HOOKS[f"tcx_{direction}"])


def entries(pin: str) -> list[dict[str, Any]]:
    """What is in a map, by its BTF."""
    return [each["formatted"] for each in bpftool("map", "dump", "pinned", pin)]


def state() -> State:
    """All that a check must not change: pins, links, cgroups, what interfaces have.

    Programs and maps without a pin, a link or a hook are gone some milliseconds later.
    """
    batch = "\n".join(("link show", "net show"))
    lines = say("bpftool", "--json", "batch", "file", "-", given=batch)
    return {
        "pins": dict(pins(BPFFS)),
        "bpftool": lines,
        "cgroups": sorted(name for name in os.listdir(cgroup2()) if name.startswith("mod")),
    }


def settled(wanted: State) -> State:
    """The state as soon as it is the wanted one, or after 60 s: links outlast their pins."""
    end = time.monotonic() + 60
    while True:
        found = state()
        if found == wanted or time.monotonic() > end:
            return found
        time.sleep(0.05)


def stable() -> State:
    """The state, when it is the same twice."""
    before = state()
    while True:
        time.sleep(0.05)
        found = state()
        if found == before:
            return found
        before = found


def pins(top: str) -> Iterator[tuple[str, list[int]]]:
    """Every pin and directory, with its inode and the time of its last change."""
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            about = os.lstat(path)
            yield path, [about.st_ino, 0 if name in folders else about.st_mtime_ns]


def cgroup2() -> str:
    """Where cgroup2 is mounted."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return next(line.split()[1] for line in file if line.split()[2] in CGROUP2_TYPES)


def mounted(path: str) -> list[str]:
    """The types of the file systems mounted at a path, one over the other."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        return [line.split()[2] for line in file if line.split()[1] == path]


def kernel() -> tuple[int, int]:
    """The kernel's version."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)
