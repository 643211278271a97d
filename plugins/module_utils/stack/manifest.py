# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The manifest of a release: what a stack consists of, as data that says all by itself.

It is what is stored and replayed, so nothing in it depends on a controller: objects are named by
their content (``sha256:`` and 64 hex digits), every option of every resource is present.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..resource.errors import Failure

LAYOUT = 1
KINDS = (
    "bpffs",
    "bpf_prog",
    "bpf_map_pin",
    "bpf_map_entries",
    "bpf_test_run",
    "cgroup_attach",
    "config_file",
    "sockmap_attach",
    "tc_attach",
    "xdp_attach",
    "xdp_lb_backend",
    "xdp_lb_services",
)
BOOT = ("early", "network", "never")
DRAINS = ("bpf_map_entries",)  # what may be converged before a stack is taken away

_KEYS = ("layout", "name", "release", "resources", "drain", "prune", "boot")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")  # a directory of bpffs, which takes no dots
_RELEASE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+:~-]{0,99}")
_NO_NAMES = ("engine",)  # has the place of a stack in the store
_NO_RELEASES = ("none", "current")  # words for something else
_REFERENCE = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Resource:
    """One declared thing: its kind, by the name of its module, and that module's options."""

    kind: str
    params: Mapping[str, Any]
    index: int = 0  # its place among the resources, from 0

    def __str__(self) -> str:
        return f"resource {self.index + 1} ({self.kind})"

    @property
    def document(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {self.kind: dict(self.params)}


@dataclass(frozen=True)
class Manifest:
    """One release of a stack. Two with the same digest make the same of a host."""

    name: str
    release: str
    resources: tuple[Resource, ...]
    drain: tuple[Resource, ...] = ()
    prune: bool = True
    boot: str = "early"

    @property
    def document(self) -> dict[str, Any]:
        """As it is stored: plain data."""
        return {"release": self.release, **self._content}

    @property
    def _content(self) -> dict[str, Any]:
        return {
            "layout": LAYOUT,
            "name": self.name,
            "resources": [resource.document for resource in self.resources],
            "drain": [resource.document for resource in self.drain],
            "prune": self.prune,
            "boot": self.boot,
        }

    def canonical(self) -> bytes:
        """The document as bytes: keys in order, no spaces; the same content gives the same."""
        return encode(self.document)

    @property
    def digest(self) -> str:
        """SHA-256, in hex, over all but the release's name."""
        return hashlib.sha256(encode(self._content)).hexdigest()

    @property
    def objects(self) -> frozenset[str]:
        """SHA-256, in hex, of each file that the resources refer to."""
        return frozenset(
            text.partition(":")[2] for each in self.resources for text in _references(each)
        )


def encode(document: Any) -> bytes:
    """Plain data as canonical JSON. Raises Failure for what JSON does not have."""
    try:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Failure(f"the manifest holds what JSON cannot say: {error}") from error
    return text.encode()


def parse(document: Any) -> Manifest:
    """Check a document and make a manifest of it; without a release it is named by its content.

    Raises Failure that names what is wrong. Options are checked by the resources themselves.
    """
    if not isinstance(document, Mapping):
        raise Failure(f"a manifest is a mapping, not {type(document).__name__}")
    if document.get("layout") != LAYOUT:
        raise Failure(
            f"this manifest has layout {document.get('layout')!r}, and this ebpf.fleet knows "
            f"{LAYOUT}; deploy it again with the collection that the host is managed by"
        )
    unknown = sorted(set(document) - set(_KEYS), key=str)
    if unknown:
        raise Failure(f"a manifest has no {unknown[0]!r}; it has: {', '.join(_KEYS)}")
    manifest = Manifest(
        name=check_name(document.get("name")),
        release="",
        resources=_resources(document.get("resources"), "resources", KINDS),
        drain=_resources(document.get("drain") or [], "drain", DRAINS),
        prune=_flag(document.get("prune", True)),
        boot=_boot(document.get("boot", "early")),
    )
    release = document.get("release") or f"auto-{manifest.digest[:12]}"
    return with_release(manifest, release)


def with_release(manifest: Manifest, release: str) -> Manifest:
    """The same content under another name."""
    return Manifest(
        manifest.name,
        check_release(release),
        manifest.resources,
        manifest.drain,
        manifest.prune,
        manifest.boot,
    )


def check_name(name: Any) -> str:
    """The name of a stack. Raises Failure for what cannot be one."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _NO_NAMES:
        raise Failure(
            f"name: {name!r} is no name of a stack: it is a directory in a BPF file system; write "
            "letters, digits, _ and -, at most 64, and not 'engine'"
        )
    return name


def check_release(release: Any) -> str:
    """The name of a release. Raises Failure for what cannot be one."""
    if not isinstance(release, str) or not _RELEASE.fullmatch(release) or release in _NO_RELEASES:
        raise Failure(
            f"release: {release!r} is no name of a release: write letters, digits and ._+:~-, at "
            "most 100, beginning with a letter or digit, and neither 'none' nor 'current'"
        )
    return release


def to_remove(declared: Any, option: str) -> tuple[Resource, ...]:
    """Resources that are named only to be taken away: of their objects nothing has to be known."""
    kinds = DRAINS if option == "drain" else KINDS
    return _resources(declared, option, kinds, refer=False)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Failure(f"prune: {value!r} is neither true nor false")
    return value


def _boot(value: Any) -> str:
    if value not in BOOT:
        raise Failure(f"boot: {value!r} is none of {', '.join(BOOT)}")
    return str(value)


def _resources(
    declared: Any, option: str, kinds: tuple[str, ...], refer: bool = True
) -> tuple[Resource, ...]:
    if not isinstance(declared, list):
        raise Failure(f"{option}: write a list of resources, not {type(declared).__name__}")
    found = []
    for index, item in enumerate(declared):
        resource = _resource(item, f"{option}[{index}]", index, kinds)
        if refer:
            _require_references(resource, f"{option}[{index}]")
        found.append(resource)
    return tuple(found)


def _resource(item: Any, where: str, index: int, kinds: tuple[str, ...]) -> Resource:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise Failure(f"{where}: write one resource, as {{module: {{options}}}}")
    ((kind, params),) = item.items()
    if kind not in kinds:
        raise Failure(f"{where}: {kind!r} is no resource; there are: {', '.join(kinds)}")
    if not isinstance(params, Mapping):
        raise Failure(f"{where}: {kind}: the options are a mapping, not {type(params).__name__}")
    _require_text(params, f"{where}: {kind}")
    if params.get("state", "present") != "present":
        raise Failure(
            f"{where}: {kind}: a stack has what is to be there; what is no longer declared is "
            "removed by itself (prune), so leave out the resource instead of its state"
        )
    return Resource(kind, params, index)


def _require_text(value: Any, where: str) -> None:
    """Refuse what neither a path nor the kernel can hold: a zero byte, half a surrogate pair."""
    if isinstance(value, str):
        if "\0" in value or value != value.encode("utf-8", "ignore").decode():
            raise Failure(f"{where}: {value!a} holds a character that is no text")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _require_text(key, where)
            _require_text(item, f"{where}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            _require_text(item, where)


def _require_references(resource: Resource, where: str) -> None:
    if resource.kind != "bpf_prog":
        return
    named = [resource.params.get(option) for option in ("object", "source")]
    given = [value for value in named if value]
    if len(given) != 1 or not is_reference(given[0]):
        raise Failure(
            f"{where}: bpf_prog: an object of a release is named by its content (sha256: and 64 "
            f"hex digits), not {given[0] if given else 'left out'!r}"
        )


def is_reference(value: Any) -> bool:
    """Whether the value names a file by its content."""
    return isinstance(value, str) and _REFERENCE.fullmatch(value) is not None


def _references(resource: Resource) -> Iterator[str]:
    if resource.kind == "bpf_prog":
        for option in ("object", "source"):
            value = resource.params.get(option)
            if is_reference(value):
                yield str(value)
