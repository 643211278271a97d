# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that a task loads on its hosts: found and decrypted on the controller, compiled for clang.

Targets then need no compiler.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.object import (
    Source,
    compile_clang,
    content_of,
)


class Loader(Protocol):
    """What is used of Ansible's DataLoader."""

    def get_real_file(self, file_path: str) -> str:
        """The path of a readable copy, decrypted if the file is in a vault."""

    def cleanup_tmp_file(self, file_path: str) -> None:
        """Remove the copy."""


@dataclass(frozen=True)
class Prepared:
    """A file to send. ``option`` is what it now is: an object is what clang made of a source."""

    option: str
    found: str  # the file that the task names
    local: str  # what to send
    is_compiled: bool

    @property
    def name(self) -> str:
        """The name that the file has on the host."""
        return os.path.basename(self.local if self.is_compiled else self.found)


@contextmanager
def prepared(
    option: str, params: Mapping[str, Any], find: Callable[[str], str], loader: Loader
) -> Iterator[Prepared]:
    """The file that ``option`` (object or source) of a program names, ready to be sent.

    Raises AnsibleError when it is not found, Failure when clang or its sha256 rejects it.
    """
    found = find(params[option])
    readable = loader.get_real_file(found)
    try:
        if option == "source" and (params.get("compiler") or "clang") == "clang":
            with tempfile.TemporaryDirectory(prefix="ebpf-fleet-") as scratch:
                yield Prepared("object", found, _compile(found, readable, params, scratch), True)
        else:
            yield Prepared(option, found, readable, False)
    finally:
        loader.cleanup_tmp_file(readable)


def _compile(path: str, local: str, params: Mapping[str, Any], scratch: str) -> str:
    """Compile the source at ``path``, whose decrypted content is at ``local``."""
    flags = params.get("cflags") or []
    flags = flags.split(",") if isinstance(flags, str) else [str(flag) for flag in flags]
    if local != path:
        # The name is part of the object, and headers are looked for beside the original.
        directory = os.path.dirname(path)
        flags += [f"-ffile-prefix-map={directory}=.", "-iquote", directory]
        local = shutil.copy(local, os.path.join(scratch, os.path.basename(path)))
    source = Source(local, "clang", tuple(flags), str(params.get("sha256") or ""))
    content_of(source)
    output = os.path.join(scratch, os.path.splitext(os.path.basename(path))[0] + ".o")
    compile_clang(source, output)
    return output
