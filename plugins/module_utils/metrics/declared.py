# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the stacks of a host declare to be attached, and whether it is, by pins and hooks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..resource.attachments import Attachment
from ..resource.classify import Known
from ..resource.errors import Failure
from ..resource.paths import pin_path
from ..stack import store
from ..stack.manifest import Resource

_HOOKS = {
    "cgroup_attach": ("cgroup",),
    "sockmap_attach": ("sockmap",),
    "tc_attach": ("tc", "tcx"),
    "xdp_attach": ("xdp",),
}


@dataclass(frozen=True)
class Labels:
    """What an attachment is known by, the same whether it is there or not."""

    stack: str
    hook: str
    target: str
    netns: str
    program: str


@dataclass(frozen=True)
class Declared:
    """One attachment of a release that runs. ``link`` and ``map`` are pins, empty for none."""

    labels: Labels
    prog: str
    link: str
    map: str

    def found(self, known: Known) -> list[Attachment]:
        """What of the host's attachments it is: of its link, else of its program at its target."""
        held = {pin.path: pin.id for pin in known.host.pins}
        items = known.host.attachments
        if self.link in held:
            return [item for item in items if item.link_id == held[self.link]]
        hooks = _HOOKS[f"{self.labels.hook}_attach"]
        target = f"map {held.get(self.map, 0)}" if self.map else self.labels.target
        return [
            item
            for item in items
            if item.hook in hooks
            and item.prog_id == held.get(self.prog)
            and item.netns == self.labels.netns
            and _is_at(item.target, target)
        ]


def _is_at(found: str, wanted: str) -> bool:
    """A cgroup may be declared by a part of its path, and a map's name comes after its id."""
    words = found.split(" (")[0]
    return words == wanted or words.endswith("/" + wanted.strip("/"))


def attachments() -> Iterator[Declared]:
    """Those of every stack's running release; a stack that cannot be read has none."""
    for name in store.stacks():
        try:
            state = store.load(name)
            if state.running is None:
                continue
            manifest = store.manifest(state, state.running)
        except Failure:
            continue
        for resource in manifest.resources:
            if resource.kind in _HOOKS and resource.params.get("state") != "absent":
                yield _declared(name, resource)


def _declared(stack: str, resource: Resource) -> Declared:
    params = resource.params
    pins = {name: pin_path(params[name]) if params.get(name) else "" for name in _PINS}
    target = params.get("cgroup") or params.get("interface") or os.path.basename(pins["map"])
    labels = Labels(
        stack=stack,
        hook=resource.kind.partition("_")[0],
        target=str(target),
        netns=os.path.basename(str(params.get("netns") or "")),
        program=os.path.basename(pins["prog"]),
    )
    return Declared(labels, pins["prog"], pins["link"], pins["map"])


_PINS = ("prog", "link", "map")
