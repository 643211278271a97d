# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A mounted BPF file system, mounted once.

The kernel mounts a second, empty one over the first without a word, and every pin is hidden. So
what is mounted is looked at first: the file system that the path reaches, and the mount table.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..bpf import files, mounts, pins
from ..bpf.mounts import Mount
from .engine import Change
from .errors import Failure, from_os_error
from .paths import BPFFS

DEFAULT_MODE = 0o700  # what systemd gives the root of its own
_PERMISSIONS = 0o777  # above these the kernel sets the sticky bit itself
_LISTED = 10


@dataclass(frozen=True)
class Desired:
    """``mode``: permissions of the root, None to leave them as they are."""

    path: str
    mode: int | None
    state: str


@dataclass(frozen=True)
class Observed:
    """``point``: the BPF file system that the path reaches, "" for none; ``mode`` of the path."""

    exists: bool
    point: str
    mode: int
    pins: tuple[str, ...]


def desired(params: Mapping[str, Any]) -> Desired:
    """Read the options. Raises Failure for a path or a mode that is none."""
    path = params["path"]
    if not path.startswith("/"):
        raise Failure(f"{path!r} is not absolute; write the whole path, such as {BPFFS}")
    return Desired(os.path.realpath(path), _mode(params["mode"]), params["state"])


def _mode(value: Any) -> int | None:
    """A number as YAML reads 0700, or a text of octal digits."""
    if value is None:
        return None
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if isinstance(value, bool) or not 0 <= mode <= _PERMISSIONS:
        raise Failure(f"mode {value!r} is none; write permissions as octal text, such as '0700'")
    return mode


def observe(desired: Desired) -> Observed:
    """Read the mount table. Raises Failure when BPF file systems are stacked or hidden there."""
    table = mounts.mounts()
    _refuse_stacked(desired.path, table)
    _refuse_hidden(desired.path, table)
    if not os.path.lexists(desired.path):
        return Observed(False, "", 0, ())
    if not os.path.isdir(desired.path):
        raise Failure(f"{desired.path} is not a directory; name a directory to mount on")
    if not pins.is_bpffs(desired.path):
        return Observed(True, "", 0, ())
    return Observed(
        True,
        _point_of(desired.path, table),
        os.stat(desired.path).st_mode & _PERMISSIONS,
        tuple(pinned_below(desired.path)),
    )


def _mounted_at(path: str, table: Sequence[Mount]) -> list[Mount]:
    return [mount for mount in table if mount.point == path and mount.fstype == "bpf"]


def _refuse_stacked(path: str, table: Sequence[Mount]) -> None:
    here = _mounted_at(path, table)
    if len({mount.device for mount in here}) > 1:
        raise Failure(
            f"{len(here)} BPF file systems are stacked on {path}; the upper one hides the pins of "
            f"those below. Look at it (ls {path}), take away what it holds, and unmount it "
            f"(umount {path}) until one is left; nothing was changed"
        )


def _refuse_hidden(path: str, table: tuple[Mount, ...]) -> None:
    for mount in _mounted_at(path, table):
        cover = mounts.covering(table, mount)
        if cover is not None and cover.device != mount.device:
            raise Failure(
                f"the BPF file system at {path} is hidden below a {cover.fstype} mounted on "
                f"{cover.point}; unmount that, or run in the host's own mount namespace ('ip netns "
                "exec' hides it: use 'nsenter --net' instead); nothing was changed"
            )


def _point_of(path: str, table: tuple[Mount, ...]) -> str:
    """The nearest mount of a BPF file system at or above ``path``."""
    above = [
        mount.point
        for mount in mounts.visible(table, "bpf")
        if f"{path}/".startswith(mount.point.rstrip("/") + "/")
    ]
    return max(above, key=len, default=path)


def pinned_below(path: str) -> list[str]:
    """The pins at and below ``path``, as paths relative to it.

    Names with a dot are the kernel's own (maps.debug, progs.debug of bpf_preload): no pin may
    have one.
    """
    return sorted(
        os.path.relpath(os.path.join(directory, name), path)
        for directory, _directories, files in os.walk(path)
        for name in files
        if "." not in name
    )


def plan(desired: Desired, observed: Observed) -> Sequence[Change]:
    """Mount, set the mode, or unmount what is empty. Raises Failure where that would lose pins."""
    if desired.state == "absent":
        return _plan_absent(desired, observed)
    if not observed.point:
        return [_plan_mount(desired, observed)]
    if desired.mode is None or desired.mode == observed.mode:
        return []
    return [
        Change(
            "set the mode of",
            desired.path,
            {"mounted": True, "mode": _octal(observed.mode)},
            {"mounted": True, "mode": _octal(desired.mode)},
            detail=desired.mode,
        )
    ]


def _plan_mount(desired: Desired, observed: Observed) -> Change:
    if not observed.exists:
        raise Failure(
            f"{desired.path} does not exist; "
            + (
                "this kernel was built without bpf(2) (CONFIG_BPF_SYSCALL), or sysfs is not mounted"
                if desired.path == BPFFS
                else "create the directory first (ansible.builtin.file, state=directory)"
            )
        )
    mode = DEFAULT_MODE if desired.mode is None else desired.mode
    after = {"mounted": True, "mode": _octal(mode)}
    return Change("mount bpffs", desired.path, {"mounted": False}, after, detail=mode)


def _plan_absent(desired: Desired, observed: Observed) -> Sequence[Change]:
    if not observed.point:
        return []
    if observed.point != desired.path:
        raise Failure(
            f"{desired.path} is a directory of the BPF file system at {observed.point} and no "
            f"mount point of its own; unmount {observed.point}, or remove the directory"
        )
    if observed.pins:
        listed = ", ".join(observed.pins[:_LISTED])
        more = len(observed.pins) - _LISTED
        raise Failure(
            f"{desired.path} holds {len(observed.pins)} pins, which unmounting would drop: {listed}"
            + (f" and {more} more" if more > 0 else "")
            + "; remove them first, each with the module that made it; nothing was changed",
            pins=list(observed.pins),
        )
    before = {"mounted": True, "mode": _octal(observed.mode)}
    return [Change("unmount bpffs", desired.path, before, {"mounted": False})]


def rehearse(desired: Desired, changes: Sequence[Change]) -> None:
    """Let the kernel make a BPF file system, or say whether the mounted one is in use."""
    for change in changes:
        if change.action == "mount bpffs":
            _refuse_filled(desired.path)
            _attempt(f"mount bpffs on {desired.path}", lambda: mounts.new_bpffs().close())
        elif change.action == "unmount bpffs":
            _attempt_unmount(desired.path, mounts.rehearse_unmount)


def apply(desired: Desired, changes: Sequence[Change]) -> None:
    """Mount, unmount or change the mode."""
    for change in changes:
        if change.action == "mount bpffs":
            _refuse_filled(desired.path)
            mount = functools.partial(mounts.mount_bpffs, desired.path, change.detail)
            _attempt(f"mount bpffs on {desired.path}", mount)
        elif change.action == "unmount bpffs":
            _attempt_unmount(desired.path, mounts.unmount)
        else:
            kept = stat.S_IMODE(os.stat(desired.path).st_mode) & ~_PERMISSIONS
            files.set_mode(desired.path, kept | change.detail)


def _refuse_filled(path: str) -> None:
    if os.listdir(path):
        raise Failure(
            f"{path} is not empty: a mount would hide what it holds; name another directory"
        )


def _attempt(what: str, step: Callable[[], None]) -> None:
    try:
        step()
    except OSError as error:
        raise from_os_error(error, what) from error


def _attempt_unmount(path: str, step: Callable[[str], None]) -> None:
    try:
        step(path)
    except OSError as error:
        busy = "something uses it: look with fuser -vm, or for mounts inside it with findmnt"
        advice = busy if error.errno == errno.EBUSY else ""
        raise from_os_error(error, f"unmount {path}", advice) from error


def _octal(mode: int) -> str:
    return f"{mode:04o}"


def report(desired: Desired, observed: Observed) -> Mapping[str, Any]:
    """What the module returns."""
    return {
        "bpffs": {
            "path": desired.path,
            "mounted": bool(observed.point),
            "mode": _octal(observed.mode) if observed.point else "",
            "pins": list(observed.pins),
        }
    }
