# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Where pins live and which of them may be taken over."""

from __future__ import annotations

import os

from ..bpf import files, pins
from .errors import Failure

BPFFS = "/sys/fs/bpf"
HOME = "ebpf_fleet"

_PATH_BYTES = 4095 - 6  # PATH_MAX, less the end of a staging name (pins.staging_path)
_NAME_BYTES = 255 - 6  # NAME_MAX, likewise


def pin_path(declared: str) -> str:
    """The absolute path of a declared pin; a relative one lies in ``/sys/fs/bpf/ebpf_fleet/``.

    Raises Failure for a path with ``..`` or an empty component, or one that is too long.
    """
    parts = declared.split("/")
    absolute = declared.startswith("/")
    if not declared or any(part in ("", ".", "..") for part in parts[1 if absolute else 0 :]):
        raise Failure(f"{declared!r} is no pin path: write it without '..', '.' or empty parts")
    path = declared if absolute else f"{BPFFS}/{HOME}/{declared}"
    longest = max(len(part.encode()) for part in parts)
    if longest > _NAME_BYTES or len(path.encode()) > _PATH_BYTES:
        raise Failure(
            f"{declared!r} is no pin path: its parts are at most {_NAME_BYTES} bytes long, "
            f"the whole {_PATH_BYTES}"
        )
    return path


def is_home(path: str) -> bool:
    """Whether the pin lies in a directory tree of ours: what is there is declared or drift."""
    return f"/{HOME}/" in path


def check_parent(path: str) -> None:
    """Require that the nearest existing directory above ``path`` is in a BPF file system."""
    directory = os.path.dirname(path)
    while not os.path.lexists(directory) and directory != "/":
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        raise Failure(f"cannot pin {path}: {directory} is not a directory")
    if not pins.is_bpffs(directory):
        raise Failure(
            f"cannot pin {path}: {directory} is not in a BPF file system; "
            f"mount one first (ebpf.fleet.bpffs with path={BPFFS})"
        )
    if "." in path[len(directory) :]:
        raise Failure(f"cannot pin {path}: a BPF file system refuses names with a dot")


def make_parent(path: str) -> None:
    """Create the directories above ``path``, for root alone."""
    files.make_directories(os.path.dirname(path), 0o700)


def prune_home(path: str) -> None:
    """After ``path`` is gone, remove the empty directories of ours above it."""
    if is_home(path):
        root, _home, _rest = path.partition(f"/{HOME}/")
        files.prune_directories(os.path.dirname(path), root)
