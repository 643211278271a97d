# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is attached where, on the whole host as far as this namespace sees it.

Links say what they hold. What hangs at a hook without a link has to be asked for, hook by hook:
every cgroup, every sockmap, every interface of the network namespace.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..bpf import cgroup, hooks, info, mounts, names, sockmap
from ..bpf import maps as map_ops
from ..bpf.info import LinkInfo, MapInfo
from ..bpf.syscall import Cmd, Fd, call

_GONE = (errno.ENOENT, errno.ENODEV)  # a hook that is removed while it is read


@dataclass(frozen=True)
class Attachment:
    """A program at a hook. ``link_id`` is 0 when none holds it (legacy).

    ``target`` is a cgroup's path, an interface or a map, ``mode`` what the hook says of how
    (multi, override or exclusive for a cgroup; native, generic or offload for XDP), ``netns`` the
    name of the interface's network namespace, empty for the own one.
    """

    hook: str
    target: str
    attach_type: str
    prog_id: int
    link_id: int = 0
    mode: str = ""
    netns: str = ""


def is_zombie(link: LinkInfo) -> bool:
    """Whether the link's target is gone."""
    targets = {
        "cgroup": link.cgroup_id,
        "xdp": link.ifindex,
        "tcx": link.ifindex,
        "netkit": link.ifindex,
        "netns": link.netns_ino,
        "sockmap": link.map_id,
    }
    return targets.get(link.type) == 0


def cgroup_paths() -> dict[int, str]:
    """The path of every cgroup below the cgroup2 mount, by the id that links name it with."""
    root = mounts.cgroup2()
    found: dict[int, str] = {}
    waiting = [root] if root else []
    while waiting:
        path = waiting.pop()
        try:
            found[cgroup.id_of(path)] = path
            with os.scandir(path) as entries:
                waiting.extend(entry.path for entry in entries if entry.is_dir())
        except FileNotFoundError:  # removed meanwhile
            continue
    return found


def of_links(
    links: Iterable[LinkInfo], cgroups: Mapping[int, str], maps: Mapping[int, MapInfo]
) -> Iterator[Attachment]:
    """What the links hold. The target of a zombie is empty."""
    for link in links:
        target = ""
        if link.cgroup_id:
            target = cgroups.get(link.cgroup_id, f"cgroup id {link.cgroup_id}")
        elif link.ifindex:
            target = f"ifindex {link.ifindex}"
        elif link.map_id:
            target = map_target(link.map_id, maps)
        elif link.netns_ino:
            target = f"netns {link.netns_ino}"
        mode = "multi" if link.type == "cgroup" else ""
        yield Attachment(link.type, target, link.attach_type, link.prog_id, link.id, mode)


def map_target(map_id: int, maps: Mapping[int, MapInfo]) -> str:
    """How an attachment names a map."""
    found = maps.get(map_id)
    return f"map {map_id} ({found.name})" if found and found.name else f"map {map_id}"


def of_cgroups(cgroups: Mapping[int, str], held: Iterable[Attachment]) -> Iterator[Attachment]:
    """What is attached to cgroups without a link. ``held``: what links hold, left out."""
    counted = Counter((item.target, item.attach_type, item.prog_id) for item in held)
    attach_types = list(cgroup.ATTACH_TYPES)
    for path in cgroups.values():
        try:
            with cgroup.open_(path) as fd:
                yield from _of_cgroup(fd, path, attach_types, counted)
        except OSError as error:
            if error.errno not in _GONE:
                raise


def _of_cgroup(
    fd: Fd, path: str, attach_types: list[str], held: Counter[tuple[str, str, int]]
) -> Iterator[Attachment]:
    for attach_type in tuple(attach_types):
        try:
            count = _count(fd, attach_type)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            attach_types.remove(attach_type)  # newer than this kernel
            continue
        if count:
            yield from _legacy(fd, path, attach_type, held)


def _count(fd: Fd, attach_type: str) -> int:
    """How many programs hang there: a query with no room, cheaper than a whole one."""
    number = names.ATTACH_TYPES.index(attach_type)
    attr = bytearray(struct.pack("=II56x", fd.number, number))
    call(Cmd.PROG_QUERY, attr, "count attached programs")
    count: int = struct.unpack_from("=I", attr, 24)[0]
    return count


def _legacy(
    fd: Fd, path: str, attach_type: str, held: Counter[tuple[str, str, int]]
) -> Iterator[Attachment]:
    attached = hooks.query(fd.number, attach_type)
    for prog_id in attached.prog_ids:
        key = (path, attach_type, prog_id)
        if held[key]:
            held[key] -= 1
        else:
            mode = cgroup_mode(attached.flags)
            yield Attachment("cgroup", path, attach_type, prog_id, mode=mode)


def cgroup_mode(flags: int) -> str:
    """``multi``, ``override`` or ``exclusive``, from the attach_flags of a query."""
    if flags & hooks.F_ALLOW_MULTI:
        return "multi"
    return "override" if flags & hooks.F_ALLOW_OVERRIDE else "exclusive"


def of_sockmaps(maps: Mapping[int, MapInfo], held: Iterable[Attachment]) -> Iterator[Attachment]:
    """What is attached to sockmaps without a link; nothing before Linux 5.18, which cannot tell."""
    by_link = {(item.target, item.attach_type) for item in held}
    for map_id, about in maps.items():
        if about.type not in sockmap.MAP_TYPES:
            continue
        target = map_target(map_id, maps)
        try:
            with info.open_map(map_id) as fd:
                for attach_type in sockmap.ATTACH_TYPES:
                    prog_id = _at_sockmap(fd, attach_type)
                    if prog_id and (target, attach_type) not in by_link:
                        yield Attachment("sockmap", target, attach_type, prog_id)
        except FileNotFoundError:
            continue


def _at_sockmap(fd: Fd, attach_type: str) -> int:
    try:
        return sockmap.attached(fd, attach_type) or 0
    except OSError as error:
        # Of sk_skb_verdict and sk_skb_stream_verdict a map has one, and is busy for the other.
        if error.errno == errno.EBUSY:
            return 0
        raise


def of_prog_arrays(maps: Mapping[int, MapInfo], wanted: Iterable[int]) -> Iterator[Attachment]:
    """What the program arrays among the ``wanted`` maps hold for tail calls."""
    for map_id in sorted(wanted):
        about = maps.get(map_id)
        if about is None or about.type != "prog_array":
            continue
        target = map_target(map_id, maps)
        try:
            with info.open_map(map_id) as fd:
                for key in map_ops.keys(fd, about.key_size):
                    value = map_ops.lookup(fd, key, about.value_size)
                    if value is not None:
                        (prog_id,) = struct.unpack("=I", value)
                        yield Attachment("prog_array", target, "", prog_id)
        except FileNotFoundError:
            continue
