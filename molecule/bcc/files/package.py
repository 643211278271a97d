# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes BCC away from a machine that has no network, and leaves it where apt finds it.

python3 package.py away      the package is gone, and apt knows a repository that has nothing else
python3 package.py back      it is there again, by whomever; apt asks whom it asked before
"""

from __future__ import annotations

import hashlib
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGE = "python3-bpfcc"
FIELDS = ("Package", "Version", "Architecture", "Maintainer", "Depends")
REPOSITORY = Path("/var/tmp/ebpf-fleet-packages")  # apt's own user reads it
SOURCES, KEPT = Path("/etc/apt"), Path("/etc/apt/kept")
LISTS = ("sources.list", "sources.list.d")


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def control() -> str:
    shown = "".join(f"{field}: ${{{field}}}\n" for field in FIELDS)
    return run("dpkg-query", "--show", f"--showformat={shown}", PACKAGE) + "Description: BCC\n"


def pack() -> None:
    """A repository of the package as it is installed here."""
    tree, file = REPOSITORY / "tree", REPOSITORY / f"{PACKAGE}.deb"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(control(), encoding="utf-8")
    for line in run("dpkg-query", "--listfiles", PACKAGE).splitlines():
        if Path(line).is_file():
            copy = tree / line.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(line, copy)
    run("dpkg-deb", "--build", "-Znone", "--root-owner-group", str(tree), str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    index = f"Filename: ./{file.name}\nSize: {file.stat().st_size}\nSHA256: {digest}\n"
    (REPOSITORY / "Packages.xz").write_bytes(lzma.compress((control() + index).encode()))


def away() -> None:
    pack()
    KEPT.mkdir()
    for name in LISTS:
        if (SOURCES / name).exists():
            shutil.move(SOURCES / name, KEPT / name)
    said = f"deb [trusted=yes] file:{REPOSITORY} ./\n"
    (SOURCES / "sources.list").write_text(said, encoding="utf-8")
    run("dpkg", "--purge", PACKAGE)


def back() -> None:
    """Fails where the package is not there."""
    run("dpkg", "--status", PACKAGE)
    run(sys.executable, "-c", "import bcc; bcc.BPF")
    (SOURCES / "sources.list").unlink()
    for kept in KEPT.iterdir():
        shutil.move(kept, SOURCES / kept.name)
    KEPT.rmdir()
    shutil.rmtree(REPOSITORY)


if __name__ == "__main__":
    {"away": away, "back": back}[sys.argv[1]]()
