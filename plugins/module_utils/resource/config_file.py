# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A file that belongs to a release, such as the configuration of a service that reads our maps.

It comes and goes with the release, whole. Directories that are named after us are made for it and
go with the last file; any other has to be there, or is made and stays.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf import files
from .engine import Change
from .errors import Failure, from_os_error

HOME = "ebpf-fleet"

_PERMISSIONS = 0o7777
_DEFAULT_MODE = 0o644


@dataclass(frozen=True)
class Desired:
    """The file as declared. ``mode`` are its permissions; owner and group are root's."""

    path: str
    content: str
    mode: int
    present: bool


@dataclass(frozen=True)
class Observed:
    """The file as it is."""

    exists: bool = False
    content: bytes = b""
    mode: int = 0


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for a path or a mode that is none."""
    path = params["path"]
    parts = path.split("/")
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts[1:]):
        raise Failure(f"path: {path!r} is none; write it from / on, without '..', '.' or '//'")
    present = (params.get("state") or "present") == "present"
    if present and params.get("content") is None:
        raise Failure(f"path: {path} has no content; declare it, or state: absent")
    return Desired(path, params.get("content") or "", _mode(params.get("mode")), present)


def _mode(value: Any) -> int:
    """A number as YAML reads 0644, or a text of octal digits."""
    if value is None:
        return _DEFAULT_MODE
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if isinstance(value, bool) or not 0 <= mode <= _PERMISSIONS:
        raise Failure(f"mode {value!r} is none; write permissions as octal text, such as '0644'")
    return mode


def observe(desired: Desired) -> Observed:
    """Read the file. Raises Failure when something else has its name."""
    try:
        status = os.lstat(desired.path)
        if not stat.S_ISREG(status.st_mode):
            raise Failure(
                f"{desired.path} is no file but {_kind(status.st_mode)}; it is left alone: remove "
                "it or declare another path"
            )
        with open(desired.path, "rb") as file:
            return Observed(True, file.read(), stat.S_IMODE(status.st_mode))
    except FileNotFoundError:
        return Observed()
    except OSError as error:
        raise from_os_error(error, f"read {desired.path}") from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    return "a symbolic link" if stat.S_ISLNK(mode) else "a device, socket or pipe"


def plan(desired: Desired, observed: Observed) -> list[Change]:
    """Write the file, set its mode, or remove it."""
    before = _shown(observed) if observed.exists else None
    if not desired.present:
        return [Change("remove file", desired.path, before, None)] if observed.exists else []
    after = {"content": desired.content, "mode": _octal(desired.mode)}
    if not observed.exists or observed.content != desired.content.encode():
        return [Change("write file", desired.path, before, after)]
    if observed.mode != desired.mode:
        return [Change("set the mode of", desired.path, before, after)]
    return []


def _shown(observed: Observed) -> dict[str, Any]:
    return {"content": observed.content.decode("utf-8", "replace"), "mode": _octal(observed.mode)}


def _octal(mode: int) -> str:
    return f"{mode:04o}"


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Require that the directory of the file is one, or can be made."""
    if not desired.present:
        return
    directory = os.path.dirname(desired.path)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise Failure(f"cannot write {desired.path}: {directory} is not a directory")


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Carry the change out; whoever reads the file meets the old or the new one, whole."""
    for change in changes:
        try:
            if change.action == "remove file":
                _remove(desired.path)
            elif change.action == "write file":
                files.make_directories(os.path.dirname(desired.path))
                files.write_atomic(desired.path, desired.content.encode(), desired.mode)
            else:
                files.set_mode(desired.path, desired.mode)
        except OSError as error:
            raise from_os_error(error, str(change)) from error


def _remove(path: str) -> None:
    files.remove(path)
    for directory in _ours_above(path):
        if not files.remove_directory(directory):
            return


def _ours_above(path: str) -> Iterator[str]:
    """The directories above that are named after us or lie below one that is, nearest first."""
    directory = os.path.dirname(path)
    while f"/{HOME}/" in f"{directory}/":
        yield directory
        directory = os.path.dirname(directory)


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """The file as it is, without its content."""
    return {
        "file": {
            "path": desired.path,
            "exists": observed.exists,
            "size": len(observed.content),
            "mode": _octal(observed.mode) if observed.exists else "",
        }
    }
