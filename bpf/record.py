# SPDX-License-Identifier: GPL-3.0-or-later
"""Write beside a built object what it was built with: record.py OBJECT COMPILER."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path


def record(path: Path, compiler: str) -> None:
    """Write NAME.json beside NAME.bpf.o: the compiler's first version line and the sha256."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True)
    built = {
        "object": path.name,
        "compiler": version.stdout.splitlines()[0],
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    beside = path.with_name(path.name.replace(".bpf.o", ".json"))
    beside.write_text(json.dumps(built, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
