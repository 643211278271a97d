# SPDX-License-Identifier: GPL-3.0-or-later
"""What a disk holds after power loss, at each step of a run: a file system that forgets what was not synced.

Data counts from the fsync of the file on, a name from the fsync of its directory on; neither counts for the other. Of
what was not synced a real disk keeps some and loses some, so each point has three images: all of it lost, all of it
kept, and the names kept without the data.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from harness_steps import Step

IMAGES = ("lost", "kept", "names only")


@dataclass
class Node:
    """A file, a directory or a symbolic link; what it is now, and what of it is on the disk."""

    kind: str  # "file", "directory" or "link"
    mode: int = 0o600
    data: bytes = b""
    synced_data: bytes = b""
    names: dict[str, Node] = field(default_factory=dict)
    synced_names: dict[str, Node] = field(default_factory=dict)

    def sync(self) -> None:
        self.synced_data = self.data
        self.synced_names = dict(self.names)


@dataclass
class Disk:
    """A directory tree with `base` at its top. What is read of a real one is on the disk already."""

    base: Path
    top: Node

    @classmethod
    def of(cls, base: Path) -> Disk:
        """The tree as it is."""
        return cls(base, _read(base) if base.exists() else _directory())

    def do(self, step: Step) -> bool:
        """Carry one step out, with all that it does to names and data; False if it concerns other files."""
        inside = [Path(path) for path in step.paths if self._holds(path)]
        if not inside:
            return False
        assert len(inside) == len(step.paths), f"{step} moves something into or out of {self.base}"
        act = getattr(self, f"_{step.call}", None)
        assert act is not None, f"no model of {step}"
        act(step, *inside)
        return True

    def _holds(self, path: str) -> bool:
        return path.startswith(f"{self.base}/") or path == str(self.base)

    def _find(self, path: Path) -> Node | None:
        node: Node | None = self.top
        for part in path.relative_to(self.base).parts:
            node = node.names.get(part) if node is not None else None
        return node

    def _parent(self, path: Path) -> Node:
        found = self._find(path.parent)
        assert found is not None, f"{path.parent} is not there"
        return found

    def _mkdir(self, _step: Step, path: Path) -> None:
        if path != self.base and self._find(path.parent) and not self._find(path):
            self._parent(path).names[path.name] = _directory()

    _mkdirat = _mkdir

    def _openat(self, step: Step, path: Path) -> None:
        found = self._find(path)
        if found is None and step.flags & os.O_CREAT:
            self._parent(path).names[path.name] = Node("file")
        elif found is not None and step.flags & os.O_TRUNC and not step.flags & os.O_EXCL:
            found.data = b""

    _open = _openat

    def _write(self, step: Step, path: Path) -> None:
        node = self._find(path)
        assert node is not None, f"{step}: the file has no name"
        node.data = node.data[: step.offset].ljust(step.offset, b"\0") + step.data

    _pwrite64 = _write

    def _ftruncate(self, step: Step, path: Path) -> None:
        node = self._find(path)
        assert node is not None, f"{step}: the file has no name"
        node.data = node.data[: step.offset].ljust(step.offset, b"\0")

    def _fsync(self, _step: Step, path: Path) -> None:
        node = self._find(path)
        if node is not None:
            node.sync()

    _fdatasync = _fsync

    def _fchmod(self, _step: Step, path: Path) -> None:
        """Modes are not what is asked about."""

    _chmod = _fchmodat = _utimensat = _fchmod

    def _rename(self, _step: Step, old: Path, new: Path) -> None:
        node = self._find(old)
        if node is not None:
            del self._parent(old).names[old.name]
            self._parent(new).names[new.name] = node

    _renameat = _renameat2 = _rename

    def _symlink(self, step: Step, path: Path) -> None:
        if self._find(path) is None:
            self._parent(path).names[path.name] = Node(
                "link", data=step.data, synced_data=step.data
            )

    _symlinkat = _symlink

    def _unlink(self, _step: Step, path: Path) -> None:
        found = self._find(path)
        if found is not None and found.kind != "directory":
            del self._parent(path).names[path.name]

    _unlinkat = _unlink

    def _rmdir(self, _step: Step, path: Path) -> None:
        found = self._find(path)
        if path != self.base and found is not None and not found.names:
            del self._parent(path).names[path.name]

    def write_image(self, image: str, target: Path) -> None:
        """Make a real tree of one of the IMAGES, in the place of what is at `target`."""
        shutil.rmtree(target, ignore_errors=True)
        _write_tree(self.top, image, target)


def _directory() -> Node:
    return Node("directory", 0o700)


def _read(path: Path) -> Node:
    if path.is_symlink():
        target = os.fsencode(os.readlink(path))
        return Node("link", data=target, synced_data=target)
    if path.is_dir():
        node = _directory()
        node.names = {entry.name: _read(entry) for entry in path.iterdir()}
    else:
        node = Node("file", path.stat().st_mode & 0o7777, path.read_bytes())
    node.sync()
    return node


def _write_tree(node: Node, image: str, target: Path) -> None:
    if node.kind == "link":
        target.symlink_to(os.fsdecode(node.data))
    elif node.kind == "file":
        target.write_bytes(node.data if image == "kept" else node.synced_data)
        target.chmod(node.mode)
    else:
        target.mkdir(node.mode)
        names = node.synced_names if image == "lost" else node.names
        for name, below in names.items():
            _write_tree(below, image, target / name)


def same_tree(one: Path, other: Path) -> bool:
    """Whether two trees have the same names and data."""
    return _listing(one) == _listing(other)


def _listing(base: Path) -> dict[str, bytes]:
    return dict(_entries(base, base))


def _entries(base: Path, path: Path) -> Iterable[tuple[str, bytes]]:
    name = str(path.relative_to(base))
    if path.is_symlink():
        yield name, b"link " + os.fsencode(os.readlink(path))
    elif path.is_dir():
        yield name, b"directory"
        for entry in path.iterdir():
            yield from _entries(base, entry)
    else:
        yield name, b"file " + path.read_bytes()
