# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Pins in a stack's directory that no resource claims.

Links go before the programs they run, and programs before the maps they use. What is not ours, or
another stack's, is left alone and named.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..bpf import files, info, map_contents, pins, provenance
from ..bpf.info import ProgramInfo
from ..resource import linked, paths
from ..resource.engine import Change
from ..resource.pinned import describe
from .kinds import ADAPTERS
from .manifest import Resource
from .plan import Step, named

_VERBS = {
    "name": "unpin link",  # one of several names of a link that stays
    "link": "detach link",
    "program": "unpin program",
    "map": "unpin map",
    "directory": "remove directory",
}


class Item(NamedTuple):
    """Something at a path that nothing claims. ``foreign``: why it is left alone."""

    path: str
    kind: str
    shown: Mapping[str, Any]
    foreign: str = ""
    warning: str = ""


class Swept(NamedTuple):
    """The step that takes pins away, if any, and what is left alone."""

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()


def find(
    name: str, taken: Collection[str], links: Iterable[str], resources: Sequence[Resource]
) -> Swept:
    """What nothing claims below the stack's directory, and among ``links``, pins of before."""
    top = paths.pin_path(name)
    with named(f"what is pinned in {top}"):
        items = [
            item
            for path in (*_outside(top, links), *_below(top))
            if path not in taken and not _is_record(path, resources)
            for item in _look(name, path)
        ]
        items = [*_with_names(items, taken), *_empty(top)]
    doomed = sorted(
        (item for item in items if not item.foreign), key=lambda item: [*_VERBS].index(item.kind)
    )
    warnings = tuple(
        f"{item.path} is in the stack's directory and left alone: {item.foreign}"
        for item in items
        if item.foreign
    )
    if not doomed:
        return Swept((), warnings)
    changes = tuple(
        Change(_VERBS[item.kind], item.path, item.shown, None, item.warning, item.kind)
        for item in doomed
    )
    step = Step(
        "what is not declared", "prune", changes, lambda: _remove(changes), _touches(changes)
    )
    return Swept((step,), warnings)


def _touches(changes: Iterable[Change]) -> bool:
    return any(change.detail == "link" for change in changes)


def _outside(top: str, links: Iterable[str]) -> Iterator[str]:
    return (path for path in links if not path.startswith(f"{top}/") and os.path.lexists(path))


def _below(top: str) -> Iterator[str]:
    for directory, _directories, names in os.walk(top):
        yield from (os.path.join(directory, name) for name in sorted(names))


def _with_names(items: Sequence[Item], taken: Collection[str]) -> Iterator[Item]:
    """The items, where a link that is declared under another name, too, only loses the one."""
    declared = set(_links_at(taken)) if any(item.kind == "link" for item in items) else set()
    for item in items:
        stays = item.kind == "link" and item.shown.get("link") in declared
        yield item._replace(kind="name", foreign="") if stays else item


def _links_at(taken: Iterable[str]) -> Iterator[int]:
    for path in taken:
        try:
            with pins.get(path) as fd:
                if pins.kind(fd) == "link":
                    yield info.link(fd).id
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES):
                raise


def _empty(top: str) -> Iterator[Item]:
    """Directories with nothing in them, which no removal of a pin takes along."""
    for directory, directories, names in os.walk(top):
        if not directories and not names:
            yield Item(directory, "directory", {"empty": True})


def _is_record(pin: str, resources: Iterable[Resource]) -> bool:
    """Whether the pin notes, before Linux 5.18, what is attached to a declared map."""
    return any(
        pin.startswith(f"{ADAPTERS[each.kind].needs(each.params)[0]}__sk_")
        for each in resources
        if each.kind == "sockmap_attach"
    )


def _look(name: str, path: str) -> Iterator[Item]:
    try:
        with pins.get(path) as fd:
            kind = pins.kind(fd)
            if kind == "program":
                about = info.program(fd)
                yield Item(path, kind, _shown(about), _whose(name, about))
            elif kind == "link":
                yield _link(name, path, info.link(fd))
            elif kind == "map":
                found = info.map_(fd)
                full = map_contents.holds_data(found) and not map_contents.is_empty(fd, found)
                warning = f"{path} is taken away, and its entries are lost with it" if full else ""
                shown = {"id": found.id, "name": found.name, "type": found.type}
                yield Item(path, kind, shown, "", warning)
            else:
                yield Item(path, kind, {}, f"it is a {kind}")
    except (FileNotFoundError, PermissionError):  # gone meanwhile, or no pin
        return


def _link(name: str, path: str, about: info.LinkInfo) -> Item:
    try:
        with info.open_program(about.prog_id) as fd:
            program = info.program(fd)
    except FileNotFoundError:
        return Item(path, "link", {"link": about.id})
    shown = {"link": about.id, "program": program.name, "prog_id": program.id}
    return Item(path, "link", shown, _whose(name, program))


def _shown(about: ProgramInfo) -> dict[str, Any]:
    return {"type": about.type, **provenance.read(about)}


def _whose(name: str, about: ProgramInfo) -> str:
    """Why the program is none of this stack's; empty when it is."""
    marks = provenance.read(about)
    if marks.get("owner") != provenance.OWNER:
        return f"its program was not loaded by ebpf.fleet ({describe(about)})"
    stack = marks.get("stack", name)
    return "" if stack == name else f"its program ({describe(about)}) belongs to stack {stack}"


def _remove(changes: Iterable[Change]) -> None:
    for change in changes:
        if change.detail == "link":
            linked.release(change.target)
        elif change.detail == "directory":
            files.remove_directory(change.target)
            paths.prune_home(change.target)
        else:
            pins.remove(change.target)
            paths.prune_home(change.target)
