# SPDX-License-Identifier: GPL-3.0-or-later
"""One file that a machine runs by itself: modules as a task has them, objects, and questions.

A task costs seconds where every instruction is emulated, and most of them go into unpacking and
compiling the same Python. Here that is done once for some hundred runs of a module.

    pack.py OUTPUT
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import ansible.module_utils

HERE = Path(__file__).resolve().parent
COLLECTION = HERE.parents[1]
SOURCES = COLLECTION / "tests" / "integration" / "targets" / "setup_bpf_objects" / "files"
INSIDE = Path("ansible_collections", "ebpf", "fleet")
CLANG = ("clang", "-g", "-O2", "-target", "bpf", "-Wall", "-Werror")

Content = tuple[Path, bytes]


def main() -> None:
    """Write the file named on the command line."""
    with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(dict(contents()).items()):
            archive.writestr(
                zipfile.ZipInfo(str(path), (2026, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED
            )


def contents() -> Iterator[Content]:
    """Each file's place in the archive, and what is in it."""
    for folder in (
        Path(),
        Path("ansible"),
        *INSIDE.parents[:-1],
        INSIDE,
        INSIDE / "plugins",
        INSIDE / "plugins" / "modules",
    ):
        if folder != Path():
            yield folder / "__init__.py", b""
    yield from python(Path(ansible.module_utils.__file__).parent, Path("ansible", "module_utils"))
    for name in ("modules", "module_utils"):
        yield from python(COLLECTION / "plugins" / name, INSIDE / "plugins" / name)
    for path in sorted((HERE / "machine").glob("*.py")):
        yield Path(path.name), path.read_bytes()
    for path in sorted(COLLECTION.glob("roles/*/files/*.bpf.o")):
        yield Path("objects", path.name), path.read_bytes()
    yield from objects()


def python(source: Path, target: Path) -> Iterator[Content]:
    """The modules of a package."""
    for path in sorted(source.rglob("*.py")):
        yield target / path.relative_to(source), path.read_bytes()


def objects() -> Iterator[Content]:
    """The programs that the integration tests have, compiled."""
    triplet = subprocess.check_output(["cc", "-print-multiarch"], text=True).strip()
    headers = f"-I/usr/include/{triplet}"
    with tempfile.TemporaryDirectory() as scratch:
        for source in sorted(SOURCES.glob("*.bpf.c")):
            built = Path(scratch, source.with_suffix(".o").name)
            subprocess.run([*CLANG, headers, "-c", str(source), "-o", str(built)], check=True)
            yield Path("objects", f"test_{built.name}"), built.read_bytes()


if __name__ == "__main__":
    main()
