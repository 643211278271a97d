# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan for a BPF file system, a pure function of what is declared and what is seen."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import bpffs
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.bpffs import Desired, Observed
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure

PATH = "/run/test/bpf"
PLAIN = Observed(True, "", 0, ())
MOUNTED = Observed(True, PATH, 0o700, ())


def steps(desired: Desired, observed: Observed) -> list[str]:
    """The plan in words."""
    return [str(change) for change in bpffs.plan(desired, observed)]


@pytest.mark.parametrize(
    ("desired", "observed", "expected"),
    [
        (Desired(PATH, None, "present"), PLAIN, [f"mount bpffs {PATH}"]),
        (Desired(PATH, None, "present"), MOUNTED, []),
        (Desired(PATH, 0o700, "present"), MOUNTED, []),
        (Desired(PATH, 0o750, "present"), MOUNTED, [f"set the mode of {PATH}"]),
        (Desired(PATH + "/a", None, "present"), MOUNTED, []),
        (Desired(PATH, None, "absent"), PLAIN, []),
        (Desired(PATH, None, "absent"), Observed(False, "", 0, ()), []),
        (Desired(PATH, None, "absent"), MOUNTED, [f"unmount bpffs {PATH}"]),
    ],
)
def test_plan(desired: Desired, observed: Observed, expected: list[str]) -> None:
    assert steps(desired, observed) == expected


@pytest.mark.parametrize(
    ("desired", "observed", "words"),
    [
        (Desired(PATH, None, "present"), Observed(False, "", 0, ()), "create the directory first"),
        (Desired("/sys/fs/bpf", None, "present"), Observed(False, "", 0, ()), "CONFIG_BPF_SYSCALL"),
        (Desired(PATH + "/a", None, "absent"), MOUNTED, "no mount point of its own"),
        (Desired(PATH, None, "absent"), Observed(True, PATH, 0, ("a", "b/c")), "2 pins.*a, b/c;"),
        (
            Desired(PATH, None, "absent"),
            Observed(True, PATH, 0, tuple(f"p{number}" for number in range(12))),
            "p9 and 2 more",
        ),
    ],
)
def test_refusal(desired: Desired, observed: Observed, words: str) -> None:
    with pytest.raises(Failure, match=words):
        bpffs.plan(desired, observed)


@pytest.mark.parametrize(
    ("value", "mode"), [(None, None), ("0700", 0o700), ("750", 0o750), (0o755, 0o755), ("0", 0)]
)
def test_mode(value: Any, mode: int | None) -> None:
    assert bpffs.desired({"path": "/x", "mode": value, "state": "present"}).mode == mode


@pytest.mark.parametrize("value", ["rwx", "0999", "1777", -1, 0o1777, True, ["0700"], ""])
def test_mode_that_is_none(value: Any) -> None:
    with pytest.raises(Failure, match="octal"):
        bpffs.desired({"path": "/x", "mode": value, "state": "present"})
