# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the store says in small files: of a release, of a change that is not over, of a fallback.

A file that power loss or a hand has spoiled is a Failure that names it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..resource.errors import Failure, from_os_error

APPLYING, CONFIRM = "applying", "confirm"


@dataclass(frozen=True)
class Record:
    """What is known of a release beside its manifest. Times are RFC 3339, in UTC.

    ``predecessor`` is what ran when a deployment last made this release current, None for nothing;
    ``reverted`` is when the host took the release back because nobody confirmed it. ``objects``
    are SHA-256, in hex.
    """

    digest: str
    created: str
    objects: tuple[str, ...] = ()
    by: Mapping[str, Any] = field(default_factory=dict)
    predecessor: str | None = None
    activated: tuple[str, ...] = ()
    reverted: str | None = None

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Pending:
    """A change that has begun and is not over.

    ``release`` is what it leads to, None when the stack is taken away; ``previous`` what it leads
    away from, and back to. ``due`` is in seconds of CLOCK_BOOTTIME in the boot ``boot``, which no
    change of the clock moves; ``confirm_by`` is the same in seconds since the epoch, for people.
    ``token`` tells one change from another. Without a guard ``due`` is None.
    """

    release: str | None
    previous: str | None
    phase: str
    token: str
    boot: str
    due: float | None = None
    confirm_by: int | None = None

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


@dataclass(frozen=True)
class Fallback:
    """That a boot could not run ``declared`` and runs another release, and why."""

    running: str | None
    declared: str
    reason: str
    kernel: str
    time: str

    def document(self) -> dict[str, Any]:
        """As it is stored."""
        return asdict(self)


def read_record(path: str) -> Record | None:
    """What is known of a release; None when there is no such file."""
    found = read_document(path)
    if found is None:
        return None
    with _Reading(path):
        return Record(
            _text(found, "digest"),
            _text(found, "created"),
            tuple(str(sha) for sha in found["objects"]),
            _mapping(found, "by"),
            _text_or_none(found, "predecessor"),
            tuple(str(time) for time in found["activated"]),
            _text_or_none(found, "reverted"),
        )


def read_pending(path: str) -> Pending | None:
    """The change that is not over; None when there is none."""
    found = read_document(path)
    if found is None:
        return None
    with _Reading(path):
        due, confirm_by = found["due"], found["confirm_by"]
        return Pending(
            _text_or_none(found, "release"),
            _text_or_none(found, "previous"),
            _text(found, "phase"),
            _text(found, "token"),
            _text(found, "boot"),
            None if due is None else float(due),
            None if confirm_by is None else int(confirm_by),
        )


def read_fallback(path: str) -> Fallback | None:
    """What a boot fell back to; None when it did not."""
    found = read_document(path)
    if found is None:
        return None
    with _Reading(path):
        running = _text_or_none(found, "running")
        rest = (_text(found, key) for key in ("declared", "reason", "kernel", "time"))
        return Fallback(running, *rest)


def read_document(path: str) -> dict[str, Any] | None:
    """The JSON object in a file, None when there is no file. Raises Failure for anything else."""
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise damaged(path, str(error)) from error
    except OSError as error:
        raise from_os_error(error, f"read {path}") from error
    if not isinstance(found, dict):
        raise damaged(path, "it holds no object")
    return found


class _Reading:
    """What is wrong with the fields of a document becomes a Failure that names the file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError)):
            raise damaged(self._path, f"{type(error).__name__}: {error}") from error


def damaged(path: str, why: str) -> Failure:
    """That a file cannot be used, and what to do."""
    return Failure(f"{path} is damaged ({why}); remove the file, then deploy the stack again")


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _text_or_none(found: Mapping[str, Any], key: str) -> str | None:
    return None if found[key] is None else _text(found, key)


def _mapping(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = found[key]
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no object")
    return value
