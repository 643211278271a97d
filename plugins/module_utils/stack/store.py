# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a host keeps of its stacks, as it is read; store_writes is how it changes.

    /var/lib/ebpf-fleet/STACK/objects/SHA256             what the releases load
                              releases/RELEASE/manifest.json, record.json
                              current -> releases/RELEASE
                              pending.json    a change that is not over
                              fallback.json   what a boot had to run instead of current

A release directory without manifest.json is one that was never finished. Nothing that is read here
is believed: a file that power loss or a hand has spoiled is a Failure that names it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from ..bpf import files
from ..resource.errors import Failure, from_os_error
from . import manifest as manifests
from .manifest import Manifest
from .record import (
    Fallback,
    Pending,
    Record,
    damaged,
    read_document,
    read_fallback,
    read_pending,
    read_record,
)

ROOT = "/var/lib/ebpf-fleet"
ENGINE = "engine"  # the one directory of ROOT that is no stack's

_FILES = ("objects", "releases", "current", "pending.json", "fallback.json")
_RELEASE_FILES = ("manifest.json", "record.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Stored:
    """One release directory. ``problem`` says why it cannot be used, empty when it can."""

    name: str
    record: Record | None
    problem: str = ""

    @property
    def age(self) -> tuple[str, str]:
        """Sorts releases by when they were last made current, else by when they were made."""
        record = self.record
        if record is None:
            return ("", self.name)
        return (max((record.created, *record.activated)), self.name)


@dataclass(frozen=True)
class State:
    """A stack as the store has it; ``releases`` are sorted, oldest first.

    ``leftovers`` are files and directories that a killed run left and nothing needs.
    """

    stack: str
    exists: bool = False
    current: str | None = None
    pending: Pending | None = None
    fallback: Fallback | None = None
    releases: Mapping[str, Stored] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()

    @property
    def running(self) -> str | None:
        """The release that the kernel has, as far as the store knows."""
        return self.fallback.running if self.fallback else self.current

    @property
    def usable(self) -> list[str]:
        """The releases that can be made current, oldest first."""
        return [name for name, stored in self.releases.items() if not stored.problem]

    def record(self, release: str) -> Record:
        """The record of a release. Raises Failure when there is none that can be read."""
        stored = self.releases.get(release)
        if stored is None:
            raise missing(self, release)
        if stored.record is None:
            raise Failure(
                f"release {release} of stack {self.stack} is damaged: {stored.problem}; or make "
                "another release active (bpf_release, state=active)"
            )
        return stored.record


def missing(state: State, release: str) -> Failure:
    """That a release is not stored, with those that are."""
    names = ", ".join(state.releases) or "none"
    return Failure(
        f"release {release} of stack {state.stack} is not stored on this host; stored are: "
        f"{names}. Deploy it with bpf_stack, or name one of these"
    )


def directory(stack: str) -> str:
    """Where the stack's files are."""
    return os.path.join(ROOT, stack)


def release_directory(stack: str, release: str) -> str:
    """Where the release's files are."""
    return os.path.join(ROOT, stack, "releases", release)


def object_file(stack: str, sha: str) -> str:
    """Where the object with this SHA-256, in hex, is or would be."""
    if not _SHA256.fullmatch(sha):
        raise Failure(f"{sha!r} is no SHA-256: it has 64 hex digits")
    return os.path.join(ROOT, stack, "objects", sha)


def stacks() -> list[str]:
    """The stacks that the host has files of, in order. Other files below ROOT are none."""
    try:
        found = sorted(os.listdir(ROOT))
    except FileNotFoundError:
        return []
    return [
        name
        for name in found
        if _is_name(manifests.check_name, name) and os.path.isdir(directory(name))
    ]


def load(stack: str) -> State:
    """Read all of a stack but its manifests and objects. Raises Failure for damaged files."""
    base = directory(manifests.check_name(stack))
    gone = tuple(path for path in (files.doomed_path(base),) if os.path.lexists(path))
    if not os.path.isdir(base):
        return State(stack, leftovers=gone)
    waiting = pending(stack)
    releases = _releases(stack)
    return State(
        stack,
        True,
        _current(base),
        waiting,
        read_fallback(os.path.join(base, "fallback.json")),
        releases,
        (*gone, *_leftovers(base, releases)),
    )


def pending(stack: str) -> Pending | None:
    """The change of the stack that is not over. Raises Failure for a damaged file."""
    return read_pending(os.path.join(directory(stack), "pending.json"))


def manifest(state: State, release: str) -> Manifest:
    """The manifest of a stored release. Raises Failure when it is not what was stored."""
    record = state.record(release)
    path = os.path.join(release_directory(state.stack, release), "manifest.json")
    document = read_document(path)
    if document is None:
        raise damaged(path, "it is missing")
    found = manifests.parse(document)
    if (found.name, found.release, found.digest) != (state.stack, release, record.digest):
        raise Failure(
            f"{path} is not what was stored (its digest is not the record's); "
            f"forget the release (bpf_release, state=absent, release={release}) and deploy it again"
        )
    return found


def holds(state: State, wanted: Manifest) -> bool:
    """Whether the release is stored, exactly like this."""
    stored = state.releases.get(wanted.release)
    if stored is None or stored.record is None or stored.record.digest != wanted.digest:
        return False
    path = os.path.join(release_directory(state.stack, wanted.release), "manifest.json")
    try:
        with open(path, "rb") as file:
            return file.read() == wanted.canonical()
    except OSError:
        return False


def object_path(stack: str, sha: str) -> str:
    """The file with this SHA-256, in hex. Raises Failure when it is missing or damaged."""
    path = object_file(stack, sha)
    if not has_content(path, sha):
        what = "has other content" if os.path.exists(path) else "is missing"
        raise Failure(f"{path} {what}; deploy the release again, which sends the object anew")
    return path


def has_content(path: str, sha: str) -> bool:
    """Whether there is such a file and its SHA-256 is this one, in hex."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha
    except FileNotFoundError:
        return False
    except OSError as error:
        raise from_os_error(error, f"read {path}") from error


def _is_name(check: Callable[[str], str], name: str) -> bool:
    """Whether a name that was found is one of ours and not one that a killed run left."""
    if name.endswith((files.staging_path(""), files.doomed_path(""))):
        return False
    try:
        check(name)
    except Failure:
        return False
    return True


def _current(base: str) -> str | None:
    path = os.path.join(base, "current")
    try:
        target = os.readlink(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Failure(f"{path} is no symbolic link to a release; remove it and deploy") from error
    parent, _slash, release = target.rpartition("/")
    if parent != "releases" or not _is_name(manifests.check_release, release):
        raise Failure(f"{path} leads to {target!r} and not to a release; remove it and deploy")
    return release


def _releases(stack: str) -> dict[str, Stored]:
    base = os.path.join(directory(stack), "releases")
    try:
        names = os.listdir(base)
    except FileNotFoundError:
        return {}
    complete = (
        name
        for name in names
        if _is_name(manifests.check_release, name)
        and os.path.isfile(os.path.join(base, name, "manifest.json"))
    )
    found = sorted((_stored(stack, name) for name in complete), key=lambda each: each.age)
    return {each.name: each for each in found}


def _stored(stack: str, release: str) -> Stored:
    path = os.path.join(release_directory(stack, release), "record.json")
    try:
        record = read_record(path)
    except Failure as failure:
        return Stored(release, None, str(failure))
    return Stored(release, record, "" if record else f"{path} is missing")


def _leftovers(base: str, releases: Mapping[str, Stored]) -> list[str]:
    """What is below the stack's directory and has no place there, or belongs to no release."""
    found = _strangers(base, _FILES)
    found += _strangers(os.path.join(base, "releases"), releases)
    for release in releases:
        found += _strangers(os.path.join(base, "releases", release), _RELEASE_FILES)
    records = [stored.record for stored in releases.values()]
    if None not in records:  # a release of which nothing is known may need any object
        needed = {sha for record in records if record is not None for sha in record.objects}
        found += _strangers(os.path.join(base, "objects"), needed)
    return found


def _strangers(base: str, known: Container[str]) -> list[str]:
    try:
        return [os.path.join(base, name) for name in sorted(os.listdir(base)) if name not in known]
    except FileNotFoundError:
        return []
