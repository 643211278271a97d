# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A trace in a process of its own, so that whatever ends it, nothing of it stays.

Programs, maps, buffers and probes are descriptors of that process and of nobody else. It is killed
when it takes too long, and by the kernel when its parent dies. What BCC and this need in the file
system is mounted in a mount namespace of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import time
from typing import Any

from ..bpf import syscall
from ..resource.errors import Failure
from . import formats, layout, needs
from .collect import Collector
from .program import Program, compiled
from .request import Request

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_MS_PRIVATE, _MS_REC = 1 << 18, 1 << 14  # include/uapi/linux/mount.h
_GRACE = 60.0  # seconds for detaching and decoding
_libc = ctypes.CDLL(None, use_errno=True)


def trace(request: Request, *, check: bool) -> dict[str, Any]:
    """Run the program within its bounds; with ``check`` only let the kernel verify it.

    Raises Failure, also when the process was killed or did not end.
    """
    needs.require_headers()
    answer = _in_a_child(request, check)
    if "failure" in answer:
        raise Failure(answer["failure"])
    return answer


def _in_a_child(request: Request, check: bool) -> dict[str, Any]:
    parent = os.getpid()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _alone(parent)
        with contextlib.suppress(BaseException), os.fdopen(writer, "wb") as pipe:
            pipe.write(json.dumps(_answer(request, check)).encode())
        os._exit(0)
    os.close(writer)
    limit = request.load_timeout + _GRACE + (0 if check else request.duration)
    try:
        raw, is_late = _all_of(reader, time.monotonic() + limit)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        _pid, status = os.waitpid(child, 0)
    if is_late:
        raise Failure(f"the trace was ended, as it took more than {limit:g} s; raise load_timeout")
    try:
        answer: dict[str, Any] = json.loads(raw)
    except ValueError as error:
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        by = (
            f"was killed by signal {ended} (look for what is short: memory)"
            if ended
            else "broke off"
        )
        raise Failure(f"the process that traced {by}") from error
    return answer


def _alone(parent: int) -> None:
    """A process group to be killed as a whole, and the death of the parent is ours."""
    os.setpgid(0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that
        os._exit(1)


def _all_of(reader: int, end: float) -> tuple[bytes, bool]:
    """What comes until the writer closes, and whether it was late."""
    parts: list[bytes] = []
    while True:
        rest = end - time.monotonic()
        if rest <= 0 or not select.select([reader], [], [], rest)[0]:
            return b"", True
        part = os.read(reader, 1 << 20)
        if not part:
            return b"".join(parts), False
        parts.append(part)


def _answer(request: Request, check: bool) -> dict[str, Any]:
    try:
        _mount_what_is_needed()
        syscall.lift_memlock()
        return _traced(request, check)
    except Failure as failure:
        return {"failure": str(failure)}
    except OSError as error:
        return {"failure": f"{error.filename or 'trace'}: {error.strerror}"}
    except Exception as error:  # noqa: BLE001 - a fork has nobody else to tell
        return {"failure": f"{type(error).__name__}: {error}"}


def _mount_what_is_needed() -> None:
    """The tracing file system, and a place for the headers that BCC unpacks where it must."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "make a mount namespace")
    _mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE)
    if not os.path.isdir(f"{formats.TRACEFS}/events"):
        needs.require_tracepoints()
        _mount(b"none", formats.TRACEFS.encode(), b"tracefs", 0)
    _mount(b"none", b"/var/tmp", b"tmpfs", 0)
    if needs.headers() == needs.KHEADERS:
        _mount(b"none", b"/tmp", b"tmpfs", 0)


def _mount(source: bytes, target: bytes, type_: bytes | None, flags: int) -> None:
    if _libc.mount(source, target, type_, ctypes.c_ulong(flags), None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"mount {target.decode()}")


def _traced(request: Request, check: bool) -> dict[str, Any]:
    begun = time.monotonic()
    flags = [*layout.definitions(request.offsets), *request.cflags]
    program = compiled(request.source, flags, request.probes)
    if any(probe.type in ("kprobe", "kretprobe") for probe in program.probes):
        needs.require_kprobes()
    program.load()
    collector = Collector(program, request)
    answer: dict[str, Any] = {
        "probes": [str(probe) for probe in program.probes],
        "load_seconds": round(time.monotonic() - begun, 3),
        **_watched(program, collector, check),
    }
    events, lost = collector.events(), collector.lost()
    tables, is_whole = collector.entries()
    if not is_whole:
        answer["ended_by"] = "max_bytes"
    return {**answer, "events": events, "lost": lost, "tables": tables}


def _watched(program: Program, collector: Collector, check: bool) -> dict[str, Any]:
    if check:
        return {"started": None, "seconds": 0.0, "ended_by": "check_mode"}
    collector.open()
    signal.signal(signal.SIGINT, collector.interrupt)
    started = time.time_ns()
    program.attach()
    begun = time.monotonic()
    ended_by = collector.run()
    program.detach()
    seconds = time.monotonic() - begun
    collector.drain()
    return {
        "started": formats.utc(started),
        "seconds": round(seconds, 3),
        "ended_by": collector.inbox.ended_by or ended_by,
    }
