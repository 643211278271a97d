# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Links: attachments that a descriptor or a pin holds, and that take a new program atomically."""

from __future__ import annotations

from . import info, journal, names
from .syscall import Cmd, Fd, bpf

F_REPLACE = 1 << 2  # BPF_F_REPLACE, include/uapi/linux/bpf.h


def create(prog: Fd, target: int, attach_type: str, flags: int = 0) -> Fd:
    """Attach ``prog`` with a new link; it lasts as long as a descriptor or a pin of it does.

    ``target`` is the number of a descriptor (cgroup, map) or an ifindex (XDP, TCX); ``flags`` are
    the hook's own (XDP_FLAGS_*). ``union bpf_attr.link_create``. Raises OSError: EINVAL also where
    the kernel has no links for this hook (cgroup before 5.7, XDP 5.9, TCX 6.6, sockmap 6.10).
    """
    number = names.number_of(names.ATTACH_TYPES, attach_type, names.ATTACH_TYPE_ALIASES)
    doing = f"create a {attach_type} link"
    link = Fd(bpf(Cmd.LINK_CREATE, "IiII", prog.number, target, number, flags, doing=doing))
    held = journal.hold(link)
    journal.undo(f"detach the {attach_type} link again", lambda: _detach(held))
    return link


def update(link: Fd, new: Fd, old: Fd | None = None) -> None:
    """Put ``new`` in the place of the link's program, with no moment of neither.

    With ``old`` the kernel compares first and refuses when another program is there (a
    compare-and-swap). Raises OSError: EPERM when ``old`` is stale, ENOLINK when the link's target
    is gone. ``union bpf_attr.link_update``.
    """
    if not journal.records():
        _update(link, new, old)
        return
    with info.open_program(info.link(link).prog_id) as before:
        back = journal.hold(link), journal.hold(before), journal.hold(new)
    _update(link, new, old)
    journal.undo("update the link back", lambda: _update(*back))


def _update(link: Fd, new: Fd, old: Fd | None) -> None:
    flags, expected = (F_REPLACE, old.number) if old is not None else (0, 0)
    bpf(Cmd.LINK_UPDATE, "IIII", link.number, new.number, flags, expected, doing="update the link")


def detach(link: Fd) -> None:
    """Detach now, whoever else holds the link, which stays as an empty shell until it is unpinned.

    Removing the last pin alone detaches too, but only some milliseconds later. Doing it to a link
    whose target is gone is no error. ``union bpf_attr.link_detach``, Linux 5.9.

    What is detached never attaches again, so that under a journal it waits for the commit; until
    then ``journal.leaving`` has the link's id.
    """
    if not journal.records():
        _detach(link)
        return
    held, link_id = journal.hold(link), info.link(link).id
    journal.at_commit(f"detach link {link_id}", lambda: _detach(held), link_id)


def detach_now(link: Fd) -> None:
    """Detach also under a journal, to make way at a hook. The caller has to say what undoes it."""
    _detach(link)


def _detach(link: Fd) -> None:
    bpf(Cmd.LINK_DETACH, "I", link.number, doing="detach the link")
