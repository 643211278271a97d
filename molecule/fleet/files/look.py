# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a machine: what runs of the accelerator, by bpftool and by the store, as JSON.

Ids are never given twice by a kernel: the same ids are the same programs, maps and attachment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

GROUPS = ("/sys/fs/cgroup/system.slice", "/sys/fs/cgroup/unified/system.slice")
PINS = "/sys/fs/bpf/ebpf_fleet/sockmap"
CURRENT = "/var/lib/ebpf-fleet/sockmap/current"


def bpftool(*words: str) -> Any:
    done = subprocess.run(["bpftool", "-j", *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout or "[]")


def pins(directory: str) -> list[str]:
    base = f"{PINS}/{directory}"
    return [entry.path for entry in os.scandir(base)] if os.path.isdir(base) else []


def ports() -> list[int]:
    """The policy's ports; bpftool prints the big-endian member of a key as this host reads it."""
    entries = bpftool("map", "dump", "pinned", f"{PINS}/maps/policy_ports")
    read = [entry["formatted"]["key"]["port"] for entry in entries]
    return sorted(int.from_bytes(port.to_bytes(2, sys.byteorder), "big") for port in read)


def is_ours(map_: Any) -> bool:
    """Whether it is pinned as the accelerator's; programs may have pins beside it."""
    return any(path.startswith(f"{PINS}/maps/") for path in map_.get("pinned", ()))


def main() -> None:
    group = next(path for path in reversed(GROUPS) if os.path.isdir(path))
    ours = set(pins("cgroups"))
    # `link show pinned` of bpftool 7.5 fails after its answer
    links = [
        link for link in bpftool("-f", "link", "show") if ours.intersection(link.get("pinned", ()))
    ]
    held = [link for link in links if link["cgroup_id"] == os.stat(group).st_ino]
    seen = {
        "release": os.path.basename(os.readlink(CURRENT)) if os.path.islink(CURRENT) else "",
        "ports": ports() if pins("maps") else [],
        "attached": sorted([link["id"], link["prog_id"]] for link in held),
        "maps": sorted(map_["id"] for map_ in bpftool("-f", "map", "show") if is_ours(map_)),
    }
    print(json.dumps(seen))


main()
