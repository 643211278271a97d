# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kills.py COLLECTIONS TIMES CFLAG...: traces, each killed at a random moment, leave no program, map, probe or process.

Programs and maps have names of this run's own, so that others on the machine do not count.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter

import provoke

sys.path.insert(0, sys.argv[1])
# They are found only now.
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.trace import request, tracer

MARK = f"k{os.getpid()}"
NOBODY = 1 << 22  # no process has this id
SOURCE = f"""
BPF_PERF_OUTPUT({MARK}_perf);
BPF_RINGBUF_OUTPUT({MARK}_ring, 8);
BPF_STACK_TRACE({MARK}_stack, 64);
BPF_HASH({MARK}_hash, u32, u64);
static inline int {MARK}_seen(void *context)
{{
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    {MARK}_hash.increment(pid);
    {MARK}_stack.get_stackid(context, 0);
    {MARK}_perf.perf_submit(context, &pid, sizeof(pid));
    {MARK}_ring.ringbuf_output(&pid, sizeof(pid), 0);
    return 0;
}}
int {MARK}_tp(void *context) {{ return {MARK}_seen(context); }}
int {MARK}_raw(void *context) {{ return 0; }}
"""
PROBES = (
    request.Probe(f"{MARK}_tp", "tracepoint", "syscalls:sys_enter_openat"),
    request.Probe(f"{MARK}_raw", "raw_tracepoint", "sys_enter"),
)


def held(group: int) -> list[str]:
    """What there is of this run."""
    found = [
        f"prog {one.get('name')}"
        for one in provoke.bpftool("prog", "show")
        if MARK in str(one.get("name"))
    ]
    found += [
        f"map {one.get('name')}"
        for one in provoke.bpftool("map", "show")
        if MARK in str(one.get("name"))
    ]
    try:
        os.kill(group, 0)
    except ProcessLookupError:
        return found
    return [*found, f"process {group}"]


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def trace(flags: list[str]) -> None:
    """Be a module that traces."""
    with contextlib.suppress(Failure):
        tracer.trace(
            request.Request(source=SOURCE, duration=300, probes=PROBES, cflags=tuple(flags)),
            check=False,
        )
    os._exit(1)


def one_kill(flags: list[str], *, running: bool) -> str:
    """Start a trace, kill it at some moment, or at one when it runs, and say how far it had got."""
    module = os.fork()
    if module == 0:
        trace(flags)
    end = time.monotonic() + 120
    while running and not any(name.startswith("prog") for name in held(NOBODY)):
        if time.monotonic() > end:
            sys.exit("nothing is loaded")
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.5 if running else 3))
    traced = children(module)
    before = held(NOBODY)
    os.kill(random.choice([module, *traced]), signal.SIGKILL)
    os.waitpid(module, 0)
    end = time.monotonic() + 60
    while left := held(traced[0] if traced else NOBODY):
        if time.monotonic() > end:
            sys.exit(f"left behind: {left}")
        time.sleep(0.05)
    return "running" if any(name.startswith("prog") for name in before) else "before that"


times = int(sys.argv[2])
print(dict(Counter(one_kill(sys.argv[3:], running=time_ % 2 == 0) for time_ in range(times))))
