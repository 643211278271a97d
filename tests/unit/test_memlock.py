# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit of locked memory, which kernels before 5.11 hold against maps and programs."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import features, syscall
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import errors


@pytest.fixture
def hard_limit() -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, before[1]))
    yield before[1]
    resource.setrlimit(
        resource.RLIMIT_MEMLOCK, (before[0], resource.getrlimit(resource.RLIMIT_MEMLOCK)[1])
    )


def test_it_is_lifted_as_far_as_it_goes(hard_limit: int) -> None:
    syscall.lift_memlock()
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert soft == hard
    assert hard in (hard_limit, resource.RLIM_INFINITY)
    syscall.lift_memlock()
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (soft, hard)


def test_a_limit_that_stays_is_named_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OSError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr(syscall, "lift_memlock", lambda: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (65536, 65536))
    monkeypatch.setattr(features, "memcg_accounting", lambda: False)
    said = str(errors.from_os_error(refused, "create a map", "see the log"))
    assert "65536 bytes are allowed here (RLIMIT_MEMLOCK)" in said
    assert said.endswith("; see the log")
    monkeypatch.setattr(features, "memcg_accounting", lambda: True)
    assert "MEMLOCK" not in str(errors.from_os_error(refused, "create a map"))
    monkeypatch.setattr(features, "memcg_accounting", lambda: False)
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (resource.RLIM_INFINITY,) * 2)
    assert "MEMLOCK" not in str(errors.from_os_error(refused, "create a map"))
