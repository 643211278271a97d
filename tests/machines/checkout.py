# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of the checkout that a test may break, and what a run of its machines leaves behind."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The machines, their network and its directory have this in their names; runs of the tests meet.
RUN = f"broken_{os.getpid()}"


@dataclass(frozen=True)
class Checkout:
    """The copy; `root` is where its README.md is, below `base`."""

    root: Path

    @property
    def base(self) -> Path:
        return self.root.parents[2]

    def break_file(self, path: str, old: str, new: str) -> None:
        """Replace what is in a file once."""
        file = self.root / path
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has changed: adapt this test"
        file.write_text(text.replace(old, new), encoding="utf-8")

    def environment(self, **more: str) -> dict[str, str]:
        collections = str(self.root / ".cache/collections")
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": collections,
            "EBPF_FLEET_RUN": RUN,
            **more,
        }

    def run(self, *words: str, machines: str = "trixie") -> subprocess.CompletedProcess[str]:
        """What `make molecule` runs, with these words, in the copy."""
        return subprocess.run(
            [self.root / ".venv/bin/python", "molecule/run.py", *words],
            cwd=self.root,
            env=self.environment(EBPF_FLEET_MACHINES=machines),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def copy() -> Checkout:
    """A new copy, with the tools of this checkout."""
    made = subprocess.run(
        [ROOT / "tests/ci/copy.sh", f"machines-{RUN}"], check=True, capture_output=True, text=True
    )
    root = Path(made.stdout.strip())
    (root / ".venv").symlink_to(ROOT / ".venv")
    tree = root / ".cache/collections/ansible_collections/ebpf"
    tree.mkdir(parents=True)
    (tree / "fleet").symlink_to("../../../..")
    return Checkout(root)


def traces() -> list[str]:
    """What there is of the run's machines on this host: processes, network namespaces, directories."""
    found = [f"process {path.name}" for path in Path("/proc").iterdir() if _is_ours(path)]
    found += [f"namespace {path.name}" for path in Path("/run/netns").glob(f"*-{RUN}")]
    found += [f"directory {path}" for path in Path("/var/tmp").glob(f"ebpf-fleet-*-{RUN}")]
    return found


def _is_ours(process: Path) -> bool:
    if not process.name.isdigit():
        return False
    try:
        words = (process / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return False
    return f"ebpf-fleet-machines-{RUN}/".encode() in words
