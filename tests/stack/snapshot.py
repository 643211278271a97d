# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything there is, as bpftool and directory listings see it: to be compared before and after."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Snapshot = dict[str, Any]

BPFFS = Path("/sys/fs/bpf")
SETTLING = 10.0  # seconds: the kernel frees what lost its last reference a little later
_KERNELS_OWN = ("maps.debug", "progs.debug")  # in every bpffs
# What changes by itself; and a map's btf_id, which bpftool 7.1 takes over from the map before.
_PASSING = ("btf_id", "run_time_ns", "run_cnt", "bytes_memlock", "pids", "recursion_misses")


def take(
    group: Path | None = None,
    netns: str = "",
    files: Iterable[Path] = (),
    maps: Iterable[str] = (),
    stack: str = "",
) -> Snapshot:
    """Our programs, maps and links by id; entries of the maps below BPFFS; what is at the hooks of a cgroup and a
    network namespace; pins, directories and files, with modes and contents.

    Ours are those that have a name below BPFFS or the mark of `stack`, and what belongs to them: other tests may run on
    the host meanwhile. `maps` are the names of those whose entries change by themselves.
    """
    programs = {
        number: each
        for number, each in _by_id("prog").items()
        if _is_pinned(each) or each.get("metadata", {}).get("stack", "") == (stack or None)
    }
    used = {number for each in programs.values() for number in each.get("map_ids", ())}
    return {
        "programs": programs,
        "maps": {
            number: each
            for number, each in _by_id("map").items()
            if _is_pinned(each) or number in used
        },
        "links": {
            number: each
            for number, each in _by_id("link").items()
            if _is_pinned(each) or each.get("prog_id") in programs
        },
        "entries": {
            path: _dump(path) for path in _pinned_maps() if os.path.basename(path) not in maps
        },
        "pins": _listing(BPFFS, with_content=False),
        "files": {str(path): _listing(path, with_content=True) for path in files},
        "cgroup": _cgroup(group) if group else None,
        "network": _network(netns) if netns else None,
        "mounts": sorted(
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ),
    }


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """What is not the same, in words; none: nothing."""
    found = []
    for part in before:
        was, now = before[part], after[part]
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            for key in sorted({*was, *now}, key=str):
                if was.get(key) != now.get(key):
                    found.append(f"{part} {key}: {was.get(key)} -> {now.get(key)}")
        else:
            found.append(f"{part}: {was} -> {now}")
    return found


def settled(before: Snapshot, again: Callable[[], Snapshot]) -> list[str]:
    """The differences that are left when the kernel has had time to free what nothing refers to."""
    end = time.monotonic() + SETTLING
    while True:
        found = differences(before, again())
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.02)


def bpftool(*words: str) -> Any:
    """It fails when what it lists goes away meanwhile, which other tests make it do: ask again."""
    for _try in range(10):
        done = subprocess.run(
            ["bpftool", "-j", *words], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            return json.loads(done.stdout or "null")
        time.sleep(0.05)
    raise AssertionError(f"bpftool {words}: {done.stdout} {done.stderr}")


def _is_pinned(item: dict[str, Any]) -> bool:
    return any(path.startswith(f"{BPFFS}/") for path in item.get("pinned", ()))


def _by_id(kind: str) -> dict[int, Any]:
    return {
        item["id"]: {key: value for key, value in item.items() if key not in _PASSING}
        for item in bpftool("-f", kind, "show") or ()
    }


def _pinned_maps() -> list[str]:
    shown = bpftool("-f", "map", "show") or ()
    return sorted(path for item in shown for path in item.get("pinned", ()))


def _dump(path: str) -> list[str]:
    dumped = bpftool("map", "dump", "pinned", path) or []
    entries = dumped if isinstance(dumped, list) else [dumped]
    return sorted(json.dumps(entry.get("formatted", entry), sort_keys=True) for entry in entries)


def _listing(base: Path, with_content: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in [base, *sorted(base.rglob("*"))] if base.exists() else []:
        if path.name in _KERNELS_OWN:
            continue
        status = path.lstat()
        shown: list[Any] = [oct(status.st_mode), status.st_uid, status.st_gid]
        if stat.S_ISLNK(status.st_mode):
            shown.append(os.readlink(path))
        elif with_content and stat.S_ISREG(status.st_mode):
            shown += [path.read_bytes(), status.st_mtime_ns]
        found[str(path)] = shown
    return found


def _cgroup(group: Path) -> list[str]:
    # As text: its JSON is broken where a hook of the device type is empty (bpftool 7.1).
    words = ["bpftool", "cgroup", "tree", str(group)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()


def _network(netns: str) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for words in (
        ["ip", "-d", "-j", "link", "show"],
        ["ip", "-j", "address", "show"],
        ["ip", "-j", "rule", "show"],
        ["ip", "-j", "route", "show", "table", "all"],
        ["tc", "-j", "qdisc", "show"],
    ):
        done = subprocess.run(
            [*words[:1], "-n", netns, *words[1:]], capture_output=True, text=True, check=True
        )
        shown[" ".join(words)] = json.loads(done.stdout or "[]")
    for link in shown["ip -d -j link show"]:
        for direction in ("ingress", "egress"):
            words = ["tc", "-n", netns, "filter", "show", "dev", link["ifname"], direction]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            shown[" ".join(words)] = done.stdout
        for key in ("stats64", "stats"):
            link.pop(key, None)
    shown["tcx"] = subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "bpftool", "net", "show"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return shown
