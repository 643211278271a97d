# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Files as a play needs to know them: what they are, their digest, and their text if short."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from typing import Any, Optional

TEXT_BYTES = 64 << 10
DIGEST_BYTES = 16 << 20  # more is no file that a play compares

Seen = Optional[dict[str, Any]]


def at_all(paths: Iterable[str]) -> dict[str, Seen]:
    """What is at each path; None: nothing."""
    return {path: at(path) for path in paths}


def at(path: str) -> Seen:
    """What is at one path, as bpf_info documents it; ``other`` when it cannot be read."""
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):
            return _file(path)
    except FileNotFoundError:
        return None
    except OSError:
        return _seen("other")
    return _seen("directory" if stat.S_ISDIR(kind) else "other")


def _file(path: str) -> dict[str, Any]:
    content = bytearray()
    with open(path, "rb") as file:
        # A single read of much from below /proc/sys is refused (proc_sys_call_handler).
        while len(content) <= DIGEST_BYTES and (more := file.read1(TEXT_BYTES)):
            content += more
    if len(content) > DIGEST_BYTES:
        return _seen("file")
    digest = hashlib.sha256(content).hexdigest()
    return _seen("file", digest, _text(content) if len(content) <= TEXT_BYTES else "")


def _text(content: bytearray) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""


def _seen(kind: str, sha256: str = "", text: str = "") -> dict[str, Any]:
    return {"kind": kind, "sha256": sha256, "text": text}
