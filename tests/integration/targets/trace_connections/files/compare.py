# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""compare.py FOUND HOST DONE: the trace has found the connections that there were, each once."""

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
sys.exit(bool(notes) or dict(found) != json.loads(done))
