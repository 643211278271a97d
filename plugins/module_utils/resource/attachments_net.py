# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What is attached to interfaces: of this network namespace and of those that ``ip netns`` lists.

A link to an interface tells only the interface's index, which every namespace gives out anew. So
the interfaces are asked, and each link is told at the interface where its program was found.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator

from ..bpf import hooks, netns, rtnetlink, tc, xdp
from ..bpf.info import LinkInfo
from ..bpf.rtnetlink import Interface
from . import xdp_dispatch
from .attachments import Attachment

TCX_ATTACH_TYPES = ("tcx_ingress", "tcx_egress")

# XDP links not yet found at an interface, by ifindex and program.
_Unplaced = dict[tuple[int, int], list[int]]


def of_interfaces(links: Iterable[LinkInfo]) -> Iterator[Attachment]:
    """Everything at the interfaces, with the link that holds it where there is one."""
    unplaced: _Unplaced = {}
    for link in links:
        if link.type == "xdp" and link.ifindex:
            unplaced.setdefault((link.ifindex, link.prog_id), []).append(link.id)
    yield from _of_namespace("", unplaced)
    own = netns.inode("")
    for name in netns.named():
        path = netns.path_of(name)
        try:
            if netns.inode(path) == own:
                continue
            with netns.entered(path):
                found = tuple(_of_namespace(name, unplaced))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):  # a file left behind, not a namespace
                continue
            raise
        yield from found


def _of_namespace(name: str, unplaced: _Unplaced) -> Iterator[Attachment]:
    for interface in rtnetlink.interfaces():
        yield from _xdp(interface, name, unplaced)
        yield from _tcx(interface, name)
        yield from _filters(interface, name)


def _xdp(interface: Interface, namespace: str, unplaced: _Unplaced) -> Iterator[Attachment]:
    for mode, prog_id in xdp.attached(interface).items():
        links = unplaced.get((interface.ifindex, prog_id), [])
        link_id = links.pop(0) if links else 0
        yield Attachment("xdp", interface.name, "xdp", prog_id, link_id, mode, namespace)
        yield from _components(interface, prog_id, mode, namespace)


def _components(
    interface: Interface, prog_id: int, mode: str, namespace: str
) -> Iterator[Attachment]:
    """What the program calls, when it is a dispatcher that shares the interface."""
    try:
        for link_id, each in xdp_dispatch.calls(interface.ifindex, prog_id):
            how = f"{mode}, called by program {prog_id} with priority {each.slot.priority}"
            called = each.program.id
            yield Attachment("xdp", interface.name, "ext", called, link_id, how, namespace)
    except FileNotFoundError:  # replaced meanwhile
        return


def _tcx(interface: Interface, namespace: str) -> Iterator[Attachment]:
    for attach_type in TCX_ATTACH_TYPES:
        try:
            attached = hooks.query(interface.ifindex, attach_type, link_ids=True)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENODEV):  # before Linux 6.6; gone meanwhile
                return
            raise
        for prog_id, link_id in zip(attached.prog_ids, attached.link_ids):
            yield Attachment("tcx", interface.name, attach_type, prog_id, link_id, netns=namespace)


def _filters(interface: Interface, namespace: str) -> Iterator[Attachment]:
    for direction in tc.DIRECTIONS:
        try:
            filters = tc.filters(interface.ifindex, direction)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            raise
        for each in filters:
            if each.prog_id:
                where = f"priority {each.priority} handle {each.handle:#x}"
                yield Attachment("tc", interface.name, direction, each.prog_id, 0, where, namespace)
