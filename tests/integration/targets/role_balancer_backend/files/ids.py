# SPDX-License-Identifier: GPL-3.0-or-later
"""ids.py DIRECTORY: prints each pin below it with its id, and a link's with its program's, as bpftool tells them."""

from __future__ import annotations

import json
import subprocess
import sys

lines = []
for kind in ("prog", "map", "link"):
    told = subprocess.run(["bpftool", "-j", "-f", kind, "show"], capture_output=True, check=True)
    for each in json.loads(told.stdout):
        for pin in each.get("pinned", ()):
            if pin.startswith(sys.argv[1] + "/"):
                lines.append(f"{pin} {each['id']} {each.get('prog_id', '')}".rstrip())
print("\n".join(sorted(lines)))
