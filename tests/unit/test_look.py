# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a play is told of a host's files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import look


def test_each_kind_of_file_is_told(tmp_path: Path) -> None:
    text, binary, long = tmp_path / "text", tmp_path / "binary", tmp_path / "long"
    text.write_text("net = 1\n")
    binary.write_bytes(b"PK\xff\xfe")
    long.write_text("x" * (look.TEXT_BYTES + 1))
    seen = look.at_all([str(text), str(binary), str(long), str(tmp_path), str(tmp_path / "none")])
    assert seen == {
        str(text): look._seen("file", hashlib.sha256(b"net = 1\n").hexdigest(), "net = 1\n"),
        str(binary): look._seen("file", hashlib.sha256(b"PK\xff\xfe").hexdigest()),
        str(long): look._seen("file", hashlib.sha256(long.read_bytes()).hexdigest()),
        str(tmp_path): look._seen("directory"),
        str(tmp_path / "none"): None,
    }


def test_what_cannot_be_read_is_no_error() -> None:
    assert look.at("/proc/sys/kernel/ostype") == look._seen(
        "file", hashlib.sha256(b"Linux\n").hexdigest(), "Linux\n"
    )
    assert look.at("/dev/null") == look._seen("other")
    assert look.at("/proc/sys/net/ipv4/route/flush") == look._seen("other")  # written only
