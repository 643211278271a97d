# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a program out of the collection's modules: pack.py ARCHIVE PACKAGE.MODULE.

The archive is a zip that Python runs (``python3 ARCHIVE``). It holds the module, whose ``main``
takes the arguments and returns the exit status, with what it imports of plugins/module_utils,
nothing else. Same sources, same bytes: no times, no compression, one order. Beside it, ARCHIVE's
name with .json says its sha256, for roles that compare it with a host's.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "plugins" / "module_utils"
PACKAGE = "ebpf_fleet"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can say
MAIN = """\
# SPDX-License-Identifier: BSD-2-Clause
import sys

from {package}.{module} import main

sys.exit(main(sys.argv[1:]))
"""


def needed(module: str) -> set[Path]:
    """The sources of a module, given with dots, and of all that it imports relatively."""
    found: set[Path] = set()
    waiting = [source_of(module.split("."))]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += imports_of(path)
    packages = {parent for path in found for parent in path.parents if SOURCES in parent.parents}
    return found | {package / "__init__.py" for package in packages}


def imports_of(path: Path) -> Iterator[Path]:
    """The sources that a source imports; ``from . import x`` may name a module or a value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = list(path.relative_to(SOURCES).parts[: -node.level])
            package += node.module.split(".") if node.module else []
            if is_module(package):
                yield source_of(package)
            else:
                yield from (
                    source_of([*package, alias.name])
                    for alias in node.names
                    if is_module([*package, alias.name])
                )


def is_module(parts: list[str]) -> bool:
    return source_of(parts).is_file()


def source_of(parts: list[str]) -> Path:
    return SOURCES.joinpath(*parts).with_suffix(".py")


def contents(module: str) -> Iterator[tuple[str, bytes]]:
    """Names in the archive, in their order, with what they hold."""
    yield "__main__.py", MAIN.format(package=PACKAGE, module=module).encode()
    yield f"{PACKAGE}/__init__.py", b""
    for path in sorted(needed(module)):
        yield f"{PACKAGE}/{path.relative_to(SOURCES).as_posix()}", path.read_bytes()


def pack(archive: Path, module: str) -> None:
    """Write the archive, or leave the one that is there."""
    staged = archive.with_name(archive.name + ".tmp")
    with zipfile.ZipFile(staged, "w", zipfile.ZIP_STORED) as packed:
        for name, content in contents(module):
            packed.writestr(zipfile.ZipInfo(name, EPOCH), content)
    digest = hashlib.sha256(staged.read_bytes()).hexdigest()
    staged.replace(archive)
    packed_as = {"program": archive.name, "sha256": digest}
    archive.with_suffix(".json").write_text(
        json.dumps(packed_as, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    pack(Path(sys.argv[1]), sys.argv[2])
