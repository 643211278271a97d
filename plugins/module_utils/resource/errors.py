# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""How a resource says no: what was attempted, why it failed, and what to do about it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import resource
from typing import Any


class Failure(Exception):
    """A resource cannot be converged. The text is for the operator and says what to do.

    ``details`` go to the module's result as they are: errno, hook, verifier log and the like.
    """

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.details = details


_ADVICE = {
    errno.EPERM: "run as root (become: true); inside a container, CAP_BPF, CAP_NET_ADMIN and "
    "CAP_SYS_ADMIN of the initial user namespace are needed",
    errno.ENOMEM: "the kernel has no memory for it",
    errno.ENOSPC: "the bpffs or the map is full",
    errno.ENOSYS: "this kernel was built without bpf(2) (CONFIG_BPF_SYSCALL)",
}


def from_os_error(error: OSError, attempt: str, advice: str = "") -> Failure:
    """Turn a kernel error into a Failure that names the attempt, the errno and a way out."""
    code = error.errno or 0
    name = errno.errorcode.get(code, str(code))
    advice = advice or _ADVICE.get(code, "")
    if code == errno.EPERM:
        advice = "; ".join(filter(None, (_memlock(), advice)))
    text = f"{attempt}: {error.strerror} ({name}, kernel {platform.release()})"
    return Failure(f"{text}; {advice}" if advice else text, errno=name, kernel=platform.release())


def _memlock() -> str:
    """What to do where locked memory stays limited and counts; then that may be why it failed."""
    from ..bpf import features, syscall  # takes 4 ms to read, and only failures want it

    syscall.lift_memlock()
    soft, _hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if soft == resource.RLIM_INFINITY:
        return ""
    with contextlib.suppress(OSError):
        if features.memcg_accounting():
            return ""
    return (
        f"this kernel counts maps and programs as locked memory, of which {soft} bytes are allowed "
        "here (RLIMIT_MEMLOCK), and only CAP_SYS_RESOURCE raises that: raise it for the service or "
        "container that runs this (LimitMEMLOCK=infinity, ulimit -l unlimited)"
    )


def require_root() -> None:
    """Refuse early when the effective user is not root."""
    if os.geteuid() != 0:
        raise Failure("bpf(2) needs root on this host; set become: true for this task")
