# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trace found against what was done: compare.py opens|drops FOUND HOST DONE. None may be missing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any


def opens(found: list[dict[str, Any]], done: dict[str, Any]) -> list[str]:
    """Every file once, by the process that opened it, with its result."""
    here = [call for call in found if call["path"].startswith(done["directory"] + "/")]
    by_path = {call["path"]: call for call in here}
    wrong = [
        f"{path} is missing" for path in done["opened"] + done["missing"] if path not in by_path
    ]
    if len(by_path) != len(here):
        wrong.append("some are there twice")
    for path in done["opened"]:
        if path in by_path and not (
            isinstance(by_path[path]["result"], int) and by_path[path]["result"] >= 0
        ):
            wrong.append(f"{path} was opened, and not {by_path[path]['result']}")
    for path in done["missing"]:
        if path in by_path and by_path[path]["result"] != "ENOENT":
            wrong.append(f"{path} was missing, and not {by_path[path]['result']}")
    if {call["pid"] for call in here} != {done["pid"]}:
        wrong.append(
            f"it was process {done['pid']}, and not {sorted({call['pid'] for call in here})}"
        )
    return wrong


def drops(found: list[dict[str, Any]], done: dict[str, Any]) -> list[str]:
    """Every packet, with the reason that the kernel's other counters gave it."""
    counted: Counter[str] = Counter()
    wrong = []
    for drop in found:
        what = WHAT.get((drop["protocol"], drop["destination_port"], drop["reason"]))
        if what:
            counted[what] += drop["packets"]
            if drop["where"] not in drop["stack"] or "+0x" not in drop["where"]:
                wrong.append(f"{what}: {drop['where']} is not in its stack {drop['stack']}")
            if what == "filtered" and not any(
                name.startswith("nf_hook_slow+") for name in drop["stack"]
            ):
                wrong.append(f"{what}: not dropped by netfilter: {drop['stack']}")
    if dict(counted) != done:
        wrong.append(f"dropped were {done}, found were {dict(counted)}")
    return wrong


WHAT = {
    ("udp", 41001, "NETFILTER_DROP"): "filtered",
    ("udp", 41002, "NO_SOCKET"): "closed",
    ("udp", 41003, "SOCKET_RCVBUFF"): "full",
    ("tcp", 41002, "NO_SOCKET"): "refused",
}


def main(kind: str, file: str, host: str, done: str) -> int:
    """Say what is wrong."""
    said = json.loads(Path(file).read_text(encoding="utf-8"))
    wrong = [note["note"] for note in said["notes"] if note["host"] == host]
    found = [one for one in said["found"] if one["host"] == host]
    wrong += {"opens": opens, "drops": drops}[kind](found, json.loads(done))
    print("\n".join(wrong[:20]) or f"{len(found)} found, none missing")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
