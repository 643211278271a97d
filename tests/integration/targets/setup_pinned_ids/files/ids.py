# SPDX-License-Identifier: GPL-3.0-or-later
"""ids.py DIRECTORY: prints each pin below it with its id, and a link's with its program's, as bpftool tells them."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

# bpftool gives up when an object that anybody on this kernel has goes away, or comes, while it lists them.
TRIES = 20


def listed(kind: str) -> list[dict[str, Any]]:
    command = ["bpftool", "-j", "-f", kind, "show"]
    for _try in range(TRIES):
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode == 0:
            found: list[dict[str, Any]] = json.loads(told.stdout)
            return found
    sys.exit(f"{' '.join(command)} failed {TRIES} times: {told.stdout}{told.stderr}")


lines = []
for kind in ("prog", "map", "link"):
    for each in listed(kind):
        for pin in each.get("pinned", ()):
            if pin.startswith(sys.argv[1] + "/"):
                lines.append(f"{pin} {each['id']} {each.get('prog_id', '')}".rstrip())
print("\n".join(sorted(lines)))
