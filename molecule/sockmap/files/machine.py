# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: `prepare` makes control groups, `remove` looks whether all is gone."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

GROUPS = ("molecule-sockmap", "molecule-plain")
PINS = Path("/sys/fs/bpf/ebpf_fleet/sockmap")


def groups() -> list[Path]:
    """The control groups, below where cgroup2 is mounted."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    root = next(mount[1] for mount in mounts if mount[2] == "cgroup2")
    return [Path(root, name) for name in GROUPS]


def remove() -> None:
    said = subprocess.run(["bpftool", "-j", "prog", "list"], check=True, capture_output=True)
    names = [program.get("name", "") for program in json.loads(said.stdout)]
    if [name for name in names if name.startswith("sockmap_")] or PINS.exists():
        raise SystemExit(f"FAILED: something is left: {names}, {PINS}")
    for group in groups():
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        for made in groups():
            made.mkdir(exist_ok=True)
    else:
        remove()
