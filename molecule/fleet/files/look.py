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


def ports() -> list[int]:
    """The policy's ports; bpftool prints the big-endian member of a key as this host reads it."""
    entries = bpftool("map", "dump", "pinned", f"{PINS}/maps/policy_ports")
    read = [entry["formatted"]["key"]["port"] for entry in entries]
    return sorted(int.from_bytes(port.to_bytes(2, sys.byteorder), "big") for port in read)


def main() -> None:
    group = next(path for path in reversed(GROUPS) if os.path.isdir(path))
    there = os.path.isdir(PINS)
    attached = [each for each in bpftool("cgroup", "show", group) if "sockmap" in each["name"]]
    seen = {
        "release": os.path.basename(os.readlink(CURRENT)) if os.path.islink(CURRENT) else "",
        "ports": ports() if there else [],
        "attached": sorted(each["id"] for each in attached),
        "maps": sorted(
            bpftool("map", "show", "pinned", entry.path)["id"]
            for entry in (os.scandir(f"{PINS}/maps") if there else ())
        ),
    }
    print(json.dumps(seen))


main()
