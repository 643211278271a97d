# SPDX-License-Identifier: GPL-3.0-or-later
"""Seccomp's user notification: system calls of a process, held until another process has decided about them.

seccomp_unotify(2), include/uapi/linux/seccomp.h. The filter goes with the process into its children and through exec.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

MACHINE = os.uname().machine
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[MACHINE]  # linux/audit.h

# asm/unistd_64.h and asm-generic/unistd.h. Calls that only one of them has are left out of the other.
NUMBERS: dict[str, int] = {
    "x86_64": {
        "bpf": 321,
        "open": 2,
        "openat": 257,
        "creat": 85,
        "write": 1,
        "writev": 20,
        "pwrite64": 18,
        "pwritev": 296,
        "sendfile": 40,
        "copy_file_range": 326,
        "fallocate": 285,
        "truncate": 76,
        "ftruncate": 77,
        "fsync": 74,
        "fdatasync": 75,
        "sync_file_range": 277,
        "syncfs": 306,
        "rename": 82,
        "renameat": 264,
        "renameat2": 316,
        "unlink": 87,
        "unlinkat": 263,
        "symlink": 88,
        "symlinkat": 266,
        "link": 86,
        "linkat": 265,
        "mkdir": 83,
        "mkdirat": 258,
        "rmdir": 84,
        "chmod": 90,
        "fchmod": 91,
        "fchmodat": 268,
        "utimensat": 280,
        "setxattr": 188,
        "lsetxattr": 189,
        "fsetxattr": 190,
        "sendto": 44,
        "sendmsg": 46,
        "mount": 165,
        "umount2": 166,
        "move_mount": 429,
        "open_tree": 428,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "mount_setattr": 442,
        "unshare": 272,
        "setns": 308,
        "exit_group": 231,
    },
    "aarch64": {
        "bpf": 280,
        "openat": 56,
        "write": 64,
        "writev": 66,
        "pwrite64": 68,
        "pwritev": 70,
        "sendfile": 71,
        "copy_file_range": 285,
        "fallocate": 47,
        "truncate": 45,
        "ftruncate": 46,
        "fsync": 82,
        "fdatasync": 83,
        "sync_file_range": 84,
        "syncfs": 267,
        "renameat": 38,
        "renameat2": 276,
        "unlinkat": 35,
        "symlinkat": 36,
        "linkat": 37,
        "mkdirat": 34,
        "fchmod": 52,
        "fchmodat": 53,
        "utimensat": 88,
        "setxattr": 5,
        "lsetxattr": 6,
        "fsetxattr": 7,
        "sendto": 206,
        "sendmsg": 211,
        "mount": 40,
        "umount2": 39,
        "move_mount": 429,
        "open_tree": 428,
        "fsopen": 430,
        "fsconfig": 431,
        "fsmount": 432,
        "mount_setattr": 442,
        "unshare": 97,
        "setns": 268,
        "exit_group": 94,
    },
}[MACHINE]
NAMES = {number: name for name, number in NUMBERS.items()}

# Which argument of an open holds its flags; only an open that makes or empties a file is a step.
OPEN_FLAGS = {"open": 1, "openat": 2}
CHANGING_FLAGS = os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
WRITES = ("write", "writev", "pwrite64", "pwritev")  # argument 0 is the descriptor

_SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}[MACHINE]
_SYS_PIDFD_GETFD = 438
_SET_MODE_FILTER, _FLAG_NEW_LISTENER = 1, 1 << 3
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_NOTIF_RECV, _NOTIF_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE

# Classic BPF, linux/filter.h.
_LOAD, _EQUALS, _HAS_BITS, _GREATER, _RETURN = 0x20, 0x15, 0x45, 0x25, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # struct seccomp_data

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Held:
    """A system call that waits: of which process, which one, with which six arguments."""

    id: int
    pid: int
    name: str
    arguments: tuple[int, ...]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _argument(number: int) -> bytes:
    return _instruction(_LOAD, _ARGS + 8 * number)  # the low half, on a little-endian machine


def _rule(name: str, report: int, passed: Sequence[int]) -> list[bytes]:
    """Notify of this call; a rule that does not apply has the number still loaded."""
    notify, allow = _instruction(_RETURN, _RET_USER_NOTIF), _instruction(_RETURN, _RET_ALLOW)
    if name in OPEN_FLAGS:
        body = [
            _argument(OPEN_FLAGS[name]),
            _instruction(_HAS_BITS, CHANGING_FLAGS, 0, 1),
            notify,
            allow,
        ]
    elif name in WRITES:  # not what the process says on its standard streams, nor to us
        body = [
            _argument(0),
            _instruction(_EQUALS, report, 1, 0),
            _instruction(_GREATER, 2, 1, 0),
            allow,
            notify,
        ]
    elif name == "bpf" and passed:
        places = range(len(passed), 0, -1)
        commands = [_instruction(_EQUALS, each, place) for each, place in zip(passed, places)]
        body = [_argument(0), *commands, notify, allow]
    else:
        body = [notify]
    return [_instruction(_EQUALS, NUMBERS[name], 0, len(body)), *body]


def install(names: Sequence[str], report: int, passed: Sequence[int] = ()) -> int:
    """Hold these calls of the calling process from now on; its end for whoever decides is returned.

    Writes to the descriptor `report` are let through, so that the process can tell the number, and these commands of
    bpf(2). Needs root.
    """
    code = [
        _instruction(_LOAD, _ARCH),
        _instruction(_EQUALS, AUDIT_ARCH, 1, 0),
        _instruction(_RETURN, _RET_ALLOW),
        _instruction(_LOAD, _NR),
    ]
    for name in names:
        code += _rule(name, report, passed)
    code.append(_instruction(_RETURN, _RET_ALLOW))
    text = ctypes.create_string_buffer(b"".join(code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(text))
    return _check(
        _libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _FLAG_NEW_LISTENER, ctypes.c_char_p(program))
    )


def fetch(pidfd: int, number: int) -> int:
    """Another process's descriptor as one of ours. pidfd_getfd(2)."""
    return _check(_libc.syscall(_SYS_PIDFD_GETFD, pidfd, number, 0))


def receive(listener: int) -> Held | None:
    """The next call that waits, None when its process has gone meanwhile."""
    memory = bytearray(80)  # struct seccomp_notif
    try:
        fcntl.ioctl(listener, _NOTIF_RECV, memory)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    identity, pid, _flags, number, _arch, _ip = struct.unpack_from("=QIIiIQ", memory)
    return Held(identity, pid, NAMES[number], struct.unpack_from("=6Q", memory, 32))


def answer(listener: int, held: Held, code: int = 0) -> None:
    """Let the call happen, or with `code` have it fail with that errno and not happen."""
    words = (held.id, 0, -code, 0 if code else _CONTINUE)
    try:
        fcntl.ioctl(listener, _NOTIF_SEND, bytearray(struct.pack("=QqiI", *words)))
    except OSError as error:
        if error.errno != errno.ENOENT:  # its process was killed meanwhile
            raise


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
