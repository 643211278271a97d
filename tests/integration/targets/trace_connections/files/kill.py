# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill.py MAPS: kill the process that traces once events are on, and wait until they are off."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import talk

maps = sys.argv[1]
talk.await_trace(maps)
# The one that switches them off again is its child.
parents = {
    pid: int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])
    for pid in talk.readers(maps)
}
for pid in parents:
    if parents[pid] not in parents:
        os.kill(pid, signal.SIGKILL)
end = time.monotonic() + 30
while talk.events_are_on(maps) or talk.readers(maps):
    if time.monotonic() > end:
        sys.exit("events are still on, or somebody still reads them")
    time.sleep(0.1)
