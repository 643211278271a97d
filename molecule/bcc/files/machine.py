# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the machine's own bpftool says of a program that BCC made, and of what traces leave.

python3 machine.py program DROPPED    the pinned program is ours, and drops frames of that type
python3 machine.py begin              remember what BPF there is
python3 machine.py left               nothing else is there, as soon as the kernel has tidied up
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import provoke

HERE = Path(__file__).resolve().parent
PIN = "/sys/fs/bpf/ebpf_fleet/bcc/count"
XDP_DROP, XDP_PASS = 1, 2
PATIENCE = 60


def require(is_so: bool, what: str, seen: Any) -> None:
    """End with what was seen instead."""
    if not is_so:
        raise SystemExit(f"{what}: {seen}")


def program(dropped: int) -> None:
    """The program as bpftool shows it, and what it does with two frames."""
    shown = provoke.bpftool("prog", "show", "pinned", PIN)
    require(shown["type"] == "xdp", "an XDP program is pinned", shown)
    require("count" in shown["name"], "it is the one of the source", shown)
    text = subprocess.run(
        ["bpftool", "prog", "show", "pinned", PIN], check=True, capture_output=True, text=True
    ).stdout
    for said in ("ebpf.fleet", "sha256", 'scenario = "bcc"'):
        require(said in text, f"bpftool says {said}", text)
    before = _seen(shown)
    require(_verdict(dropped) == XDP_DROP, "a frame of the type is dropped", hex(dropped))
    require(_verdict(0x0800) == XDP_PASS, "another is passed", "IPv4")
    after = _seen(shown)
    require(after[0] == before[0] + 2, "both were counted", (before, after))
    version = _version(os.uname().version)
    require(
        after[1] == version,
        "the headers were those of the running kernel",
        (hex(after[1]), hex(version)),
    )


def _version(text: str) -> int:
    """LINUX_VERSION_CODE of what `uname -v` says; Debian's release has not always the last part."""
    found = re.search(r"Debian (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise SystemExit(f"what version is this: {text}")
    major, minor, patch = (int(part) for part in found.groups())
    return (major << 16) + (minor << 8) + min(patch, 255)


def _verdict(ethertype: int) -> int:
    frame = HERE / "frame"
    frame.write_bytes(bytes(12) + ethertype.to_bytes(2, "big") + bytes(50))
    done = provoke.bpftool("prog", "run", "pinned", PIN, "data_in", str(frame))
    return int(done["retval"])


def _seen(shown: dict[str, Any]) -> list[int]:
    for number in shown["map_ids"]:
        held = provoke.bpftool("map", "show", "id", str(number))
        if held.get("name") == "seen":
            entries = provoke.bpftool("map", "dump", "id", str(number))
            return [_number(entry["value"]) for entry in entries]
    raise SystemExit(f"the program uses no map named seen: {shown}")


def _number(value: Any) -> int:
    """A value as bpftool shows it, with types or as bytes."""
    if isinstance(value, list):
        return int.from_bytes(bytes(int(byte, 16) for byte in value), sys.byteorder)
    return int(value)


def left(before: dict[str, Any]) -> None:
    """What the trace had goes when its process has gone, some milliseconds later."""
    end = time.monotonic() + PATIENCE
    while provoke.held() != before and time.monotonic() < end:
        time.sleep(0.2)
    now = provoke.held()
    require(now == before, "nothing is left", {"before": before, "now": now})


def main(words: list[str]) -> None:
    """Do what is asked."""
    memory = HERE / "held.json"
    if words[0] == "program":
        program(int(words[1], 0))
    elif words[0] == "begin":
        memory.write_text(json.dumps(provoke.held()), encoding="utf-8")
    else:
        left(json.loads(memory.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main(sys.argv[1:])
