# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How the store changes: each file whole or not at all, each change undone by a failed transaction.

Files are written under another name, synced and renamed, and their directory is synced (bpf/files),
so that power loss leaves the old file or the new one. What cannot be undone, the removal of
releases, waits for the transaction's commit. Everything is for root alone.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..bpf import files, journal
from ..resource.errors import Failure
from . import store
from .manifest import Manifest
from .record import Fallback, Pending, Record

_DIRECTORY, _FILE = 0o700, 0o600
_ACTIVATIONS = 20  # how many times of becoming current a record remembers
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def now() -> str:
    """The time in UTC, as RFC 3339, exact enough to sort by."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def boot_id() -> str:
    """Which boot of the host this is."""
    with open(BOOT_ID, encoding="ascii") as file:
        return file.read().strip()


def prepare(stack: str) -> None:
    """Make the stack's directories."""
    for path in (store.ROOT, store.directory(stack)):
        files.make_directories(path, _DIRECTORY)
    for name in ("objects", "releases"):
        files.make_directories(os.path.join(store.directory(stack), name), _DIRECTORY)


def put_object(stack: str, sha: str, source: str) -> None:
    """Store the content of ``source``, unless it is there. Raises Failure if it is not ``sha``."""
    path = store.object_file(stack, sha)
    if store.has_content(path, sha):
        return
    with open(source, "rb") as file:
        content = file.read()
    files.write_atomic(path, content, _FILE)
    if not store.has_content(path, sha):
        raise Failure(f"{source} does not have the SHA-256 {sha}; it was changed meanwhile")


def put_release(manifest: Manifest, record: Record) -> None:
    """Store a release. Its manifest comes last: with it the release is complete."""
    base = store.release_directory(manifest.name, manifest.release)
    files.make_directories(base, _DIRECTORY)
    put_record(manifest.name, manifest.release, record)
    files.write_atomic(os.path.join(base, "manifest.json"), manifest.canonical(), _FILE)


def put_record(stack: str, release: str, record: Record) -> None:
    """Store what is known of a release, in the place of what was known."""
    path = os.path.join(store.release_directory(stack, release), "record.json")
    _write(path, record.document())


def set_current(stack: str, release: str | None) -> None:
    """Say which release is current, in one step."""
    path = os.path.join(store.directory(stack), "current")
    if release is None:
        files.remove(path)
    else:
        files.symlink_atomic(f"releases/{release}", path)


def set_pending(stack: str, pending: Pending | None) -> None:
    """Say that a change has begun, or that it is over."""
    path = os.path.join(store.directory(stack), "pending.json")
    if pending is None:
        files.remove(path)
    else:
        _write(path, pending.document())


def set_fallback(stack: str, fallback: Fallback | None) -> None:
    """Say what a boot runs in the place of what is current, or that it runs that."""
    path = os.path.join(store.directory(stack), "fallback.json")
    if fallback is None:
        files.remove(path)
    else:
        _write(path, fallback.document())


def activated(record: Record, time: str) -> Record:
    """The record of a release that has become current."""
    times = (*record.activated, time)[-_ACTIVATIONS:]
    return dataclasses.replace(record, activated=times, reverted=None)


def surplus(releases: Sequence[str], keep: int, protected: Container[str | None]) -> list[str]:
    """Which of the releases, given oldest first, are more than ``keep``; never a protected one."""
    spare = [name for name in releases if name not in protected]
    return spare[: max(0, len(releases) - max(keep, 1))]


def drop(stack: str, releases: Iterable[str]) -> None:
    """Remove releases; ``sweep`` removes their objects."""
    for release in releases:
        files.remove_tree(store.release_directory(stack, release))


def drop_all(stack: str) -> None:
    """Remove all that is stored of the stack."""
    files.remove_tree(store.directory(stack))


def sweep(stack: str) -> None:
    """Remove what killed runs left, and objects that no release has, once all else is done."""
    journal.at_commit(f"sweep {store.directory(stack)}", functools.partial(_sweep, stack))


def _sweep(stack: str) -> None:
    for path in store.load(stack).leftovers:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _write(path: str, document: Mapping[str, Any]) -> None:
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False)
    files.write_atomic(path, (text + "\n").encode(), _FILE)
