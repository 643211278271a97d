# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compare.py FOUND HOST DONE: the trace has found the connections that there were, each once.

A handshake that looks like a SYN cookie's, one in a thousand, leaves its connection on TCP.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

file, host, done = sys.argv[1:]
said = json.loads(Path(file).read_text(encoding="utf-8"))
notes = [note["note"] for note in said["notes"] if note["host"] == host]
found = Counter(
    " ".join([one["state"], *one["reasons"]]) for one in said["found"] if one["host"] == host
)
print(dict(found), notes)
made = Counter(json.loads(done))
extra, missing = found - made, made - found
cookies = sum(count for reasons, count in extra.items() if "syn_cookie" in reasons)
as_made = extra.total() == missing.total() == cookies <= 2
sys.exit(bool(notes) or not as_made)
