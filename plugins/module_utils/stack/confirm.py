# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Commit-confirm: a change that may cut the host off is taken back unless somebody confirms it.

A guard, a process of its own that outlives the connection, watches pending.json from before the
first step. Confirming removes the file; a guard that does not find its change there ends. A killed
guard is made up for by the next boot, and told by the next run and by the status.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from ..bpf import journal
from ..resource.errors import Failure, from_os_error
from . import engine_dir, keep, store
from . import manifest as manifests
from .record import CONFIRM, Pending
from .store import State

SYSTEMD = "/run/systemd/system"  # sd_booted(3)
_POLL_SECONDS = 1.0


def deadline(seconds: int) -> tuple[float | None, int | None]:
    """When so many seconds are over: on CLOCK_BOOTTIME and since the epoch; None for 0."""
    if not seconds:
        return None, None
    return time.clock_gettime(time.CLOCK_BOOTTIME) + seconds, int(time.time()) + seconds


def is_over(pending: Pending) -> bool:
    """Whether the time to confirm has passed; it has when the host was booted since."""
    if pending.boot != keep.boot_id():
        return True
    return pending.due is not None and time.clock_gettime(time.CLOCK_BOOTTIME) >= pending.due


def confirm(request: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Keep a release that waits to be confirmed. Raises Failure when it does not run (any more)."""
    state = store.load(manifests.check_name(request.get("name")))
    release = manifests.check_release(request.get("release"))
    waits = _waits(state, release)
    if waits and not check:
        with journal.recording():
            keep.set_pending(state.stack, None)
    action = f"confirm release {release} of stack {state.stack}"
    change = {"before": {action: {"confirmed": False}}, "after": {action: {"confirmed": True}}}
    return {
        "changed": waits,
        "actions": [action] if waits else [],
        "diff": change if waits else {"before": {}, "after": {}},
        "warnings": [],
        "plan": [],
        "resources": [],
        "release": state.current,
        "previous": state.current,
        "releases": list(state.releases),
    }


def _waits(state: State, release: str) -> bool:
    pending = state.pending
    if pending is not None and pending.release == release:
        if pending.phase == CONFIRM and state.current == release:
            return True
        raise Failure(
            f"the change to release {release} of stack {state.stack} was begun and never finished; "
            "deploy it again, or withdraw it"
        )
    if state.current == release:
        return False
    stored = state.releases.get(release)
    reverted = stored.record.reverted if stored and stored.record else None
    why = f"it was taken back at {reverted}, as nobody had confirmed it" if reverted else ""
    raise Failure(
        f"release {release} of stack {state.stack} cannot be confirmed: "
        f"{why or 'it is not what this host runs'}; the host runs {state.current or 'nothing'}. "
        "Deploy it again when the way to the host is certain",
        release=state.current,
        reverted=reverted,
    )


def start_guard(stack: str, token: str, engine: str = "") -> None:
    """Start a process that takes the change ``token`` back at its deadline. Raises Failure."""
    command = [sys.executable, "-I", engine_dir.program(engine), "guard", stack, token]
    try:
        if os.path.isdir(SYSTEMD):
            _start_unit(stack, f"ebpf-fleet-guard-{stack}-{token}", command)
        else:
            _start_detached(command)
    except OSError as error:
        attempt = "start the guard that takes an unconfirmed change back"
        raise from_os_error(error, attempt, "or set confirm_timeout: 0") from error


def _start_unit(stack: str, unit: str, command: list[str]) -> None:
    """In a unit of its own: what a session started ends with the session, where logind does so."""
    import subprocess  # a run that changes nothing does without

    run = ["systemd-run", "--quiet", "--collect", f"--unit={unit}"]
    run += [f"--description=Guard of an unconfirmed change of eBPF stack {stack}"]
    run += ["--property=SyslogIdentifier=ebpf-fleet", "--", *command]
    done = subprocess.run(run, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        raise Failure(
            f"systemd-run does not start the guard that takes an unconfirmed change back: "
            f"{done.stderr.strip()}; or set confirm_timeout: 0"
        )


def _start_detached(command: list[str]) -> None:
    """In a session of its own, holding nothing that the caller's end waits for."""
    import subprocess

    null = subprocess.DEVNULL
    subprocess.Popen(command, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")


def wait(stack: str, token: str) -> bool:
    """Wait until the change is over, or its time is. Returns whether its time is."""
    while True:
        pending = store.pending(stack)
        if pending is None or pending.token != token or pending.due is None:
            return False
        if is_over(pending):
            return True
        left = pending.due - time.clock_gettime(time.CLOCK_BOOTTIME)
        time.sleep(max(0.01, min(_POLL_SECONDS, left)))
