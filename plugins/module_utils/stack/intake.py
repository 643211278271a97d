# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a deployment brings: a manifest, and the files that it refers to, wherever they are now.

A release is self-contained: a file that the manifest names by its path on this host (remote_src)
is named by its content from here on, and stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..resource.errors import Failure, from_os_error
from . import manifest as manifests
from . import store
from .manifest import Manifest

_OPTIONS = ("object", "source")


@dataclass(frozen=True)
class Brought:
    """``files``: for each object that the store lacks its SHA-256 in hex, and where it is now.

    ``lacks`` are those that are nowhere on this host.
    """

    manifest: Manifest
    files: Mapping[str, str]
    lacks: tuple[str, ...]

    def resolve(self, sha: str) -> str:
        """Where the object with this SHA-256, in hex, is. Raises Failure if it is gone."""
        return self.files.get(sha) or store.object_path(self.manifest.name, sha)


@contextlib.contextmanager
def reading(document: Any, blobs: str) -> Iterator[Brought]:
    """Read a manifest and look its files up: in the store, in the directory ``blobs``, on the host.

    What has to be compiled is there until the context ends. Raises Failure for a document that is
    no manifest, and for a path that holds no file.
    """
    with contextlib.ExitStack() as scratch:
        local: dict[str, str] = {}
        manifest = manifests.parse(_localised(document, local, scratch))
        files: dict[str, str] = {}
        lacks = []
        for sha in sorted(manifest.objects):
            places = [store.object_file(manifest.name, sha)]
            places += [os.path.join(blobs, sha)] if blobs else []
            places += [local[sha]] if sha in local else []
            found = next((place for place in places if store.has_content(place, sha)), None)
            if found is None:
                lacks.append(sha)
            elif found != places[0]:
                files[sha] = found
        yield Brought(manifest, files, tuple(lacks))


def _localised(document: Any, local: dict[str, str], scratch: contextlib.ExitStack) -> Any:
    """The document with paths on this host replaced by what is there now; notes them in local."""
    if not isinstance(document, Mapping) or not isinstance(document.get("resources"), list):
        return document  # which parse refuses in its own words
    resources = [
        {kind: _named_by_content(params, local, scratch) for kind, params in item.items()}
        if isinstance(item, Mapping)
        else item
        for item in document["resources"]
    ]
    return {**document, "resources": resources}


def _named_by_content(params: Any, local: dict[str, str], scratch: contextlib.ExitStack) -> Any:
    if not isinstance(params, Mapping) or not params.get("remote_src"):
        return params
    # The store is where the file is from now on, on every host alike.
    named = {**params, "remote_src": False}
    for option in _OPTIONS:
        path = params.get(option)
        if not isinstance(path, str) or not path or manifests.is_reference(path):
            continue
        sha = _sha_of(path)
        expected = str(params.get("sha256") or "").lower()
        if expected and sha != expected:
            raise Failure(
                f"{path} has sha256 {sha}, expected {expected}; nothing was changed: copy the file "
                "again, or correct sha256"
            )
        if option == "source" and params.get("compiler") != "bcc":
            path = _compiled(path, params.get("cflags") or (), scratch)
            sha = _sha_of(path)
            named.update(source=None, cflags=None, object=f"sha256:{sha}", sha256=None)
        else:
            named[option] = f"sha256:{sha}"
        local[sha] = path
    return named


def _compiled(path: str, cflags: Sequence[str], scratch: contextlib.ExitStack) -> str:
    """What clang makes of a source: the object is stored, as no source is whole without headers."""
    from ..resource import object as objects

    directory = scratch.enter_context(tempfile.TemporaryDirectory(prefix="ebpf-fleet-"))
    output = os.path.join(directory, os.path.basename(path) + ".o")
    source = objects.Source(path, "clang", tuple(str(flag) for flag in cflags))
    objects.compile_clang(source, output)
    return output


def _sha_of(path: str) -> str:
    if not os.path.isabs(path):
        raise Failure(f"{path!r} is not absolute; with remote_src the whole path is needed")
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        advice = "copy it to the host first (ansible.builtin.copy)"
        raise from_os_error(error, f"read {path}", advice) from error
