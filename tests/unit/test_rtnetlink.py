# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Netlink against the kernel, in a network namespace of the test's own."""

from __future__ import annotations

import errno
import os

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import netns, rtnetlink, tc, xdp


def test_attributes_are_padded_and_read_back() -> None:
    data = rtnetlink.text(3, "it0") + rtnetlink.nest(43, rtnetlink.u32(1, -1))
    assert len(data) % 4 == 0
    found = rtnetlink.attributes(data)
    assert rtnetlink.as_text(found[3]) == "it0"
    assert rtnetlink.attributes(found[43]) == {1: b"\xff" * 4}
    assert rtnetlink.attributes(data[:-4])[3] == b"it0\0"
    assert rtnetlink.attributes(b"\x02\0\0\0") == {}
    assert rtnetlink.as_u32(None) == 0


def test_a_scratch_namespace_has_lo_alone_and_is_left() -> None:
    before = netns.inode("")
    with netns.scratch():
        assert netns.inode("") != before
        assert [(each.name, each.ifindex) for each in rtnetlink.interfaces()] == [("lo", 1)]
    assert netns.inode("") == before


def test_a_namespace_is_left_after_an_error() -> None:
    before = netns.inode("")
    with netns.scratch():
        scratch = f"/proc/{os.getpid()}/fd/{os.open('/proc/thread-self/ns/net', os.O_RDONLY)}"
    with pytest.raises(KeyError) as caught, netns.entered(scratch):
        raise KeyError(netns.inode(""))
    assert caught.value.args == (os.stat(scratch).st_ino,)
    assert netns.inode("") == before
    os.close(int(scratch.rpartition("/")[2]))
    for path, code in (("/proc/self/ns/mnt", errno.EINVAL), ("/none", errno.ENOENT)):
        with pytest.raises(OSError, match=path) as refused, netns.entered(path):
            pass
        assert refused.value.errno == code
    assert netns.inode("") == before


def test_interfaces_are_found_by_any_name() -> None:
    with netns.scratch():
        lo = rtnetlink.interface("lo")
        assert lo is not None
        assert (lo.name, lo.ifindex, lo.mtu) == ("lo", 1, 65536)
        assert xdp.attached(lo) == {}
        assert rtnetlink.interface("none") is None
        assert rtnetlink.interface("an-alternative-name-of-nothing") is None


def test_the_kernel_says_why_in_its_own_words() -> None:
    with netns.scratch(), pytest.raises(OSError, match="Cannot find specified qdisc") as refused:
        tc.delete_clsact(1)
    assert refused.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="No such device"):
        tc.add_clsact(0x7FFFFFFF)


def test_a_qdisc_and_a_chain() -> None:
    with netns.scratch():
        assert (tc.qdisc(1), tc.filters(1, "ingress"), tc.chains(1, "ingress")) == ("", [], [])
        tc.add_clsact(1)
        tc.add_chain(1, "ingress", 77)
        assert (tc.qdisc(1), tc.chains(1, "ingress"), tc.chains(1, "egress")) == (
            "clsact",
            [77],
            [],
        )
        tc.delete_clsact(1)
        assert tc.qdisc(1) == ""
