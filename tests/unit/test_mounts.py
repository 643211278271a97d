# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which mounts a path reaches, read from mount tables as the kernel prints them."""

from __future__ import annotations

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.mounts import (
    Mount,
    covering,
    parse,
    visible,
)

ROOT = "1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
SYS = "2 1 0:20 / /sys rw,nosuid shared:7 master:3 - sysfs sysfs rw\n"
BPF = "3 2 0:30 / /sys/fs/bpf rw,relatime - bpf bpf rw,mode=700\n"


def point_of(mount: Mount | None) -> str | None:
    """Where the mount is, for comparing."""
    return mount.point if mount else None


def test_fields() -> None:
    assert parse(ROOT + BPF)[1] == Mount(3, 2, "0:30", "/", "/sys/fs/bpf", "bpf")


def test_space_in_a_path() -> None:
    text = r"9 1 0:31 /a\040b /mnt/c\134d\040e rw - tmpfs none rw"
    assert parse(text)[0].point == "/mnt/c\\d e"
    assert parse(text)[0].root == "/a b"


@pytest.mark.parametrize(
    ("more", "cover"),
    [
        ("", None),
        ("4 3 0:31 / /sys/fs/bpf rw - bpf bpf rw\n", "/sys/fs/bpf"),
        ("4 3 0:30 / /sys/fs/bpf rw - bpf bpf rw\n", "/sys/fs/bpf"),
        ("4 2 0:32 / /sys rw - sysfs none rw\n", "/sys"),
        ("4 2 0:32 / /sys/fs rw - tmpfs none rw\n", "/sys/fs"),
        ("4 1 0:32 / / rw - tmpfs none rw\n", "/"),
        # Beside it, inside it, and a path that only begins with the same letters.
        ("4 2 0:33 / /sys/fs/cgroup rw - cgroup2 none rw\n", None),
        ("4 3 0:33 / /sys/fs/bpf/inner rw - tmpfs none rw\n", None),
        ("4 2 0:33 / /sys/fs/bp rw - tmpfs none rw\n", None),
    ],
)
def test_what_hides_a_mount(more: str, cover: str | None) -> None:
    table = parse(ROOT + SYS + BPF + more)
    assert point_of(covering(table, table[2])) == cover


def test_what_is_mounted_over_another_is_in_sight() -> None:
    """As 'ip netns exec' leaves it: sysfs once more over /sys, then bpffs inside."""
    table = parse(
        ROOT + SYS + BPF + "4 2 0:32 / /sys rw - sysfs x rw\n5 4 0:34 / /sys/fs/bpf rw - bpf x rw\n"
    )
    assert [mount.id for mount in visible(table, "bpf")] == [5]
