# SPDX-License-Identifier: GPL-3.0-or-later
"""What a held system call is about, in words: read from the memory and the descriptors of the process that waits."""

from __future__ import annotations

import os
import socket
import stat
import struct
from dataclasses import dataclass, field

from harness_seccomp import Held, fetch

# enum bpf_cmd, linux/bpf.h: what only reads, and the names of the rest.
BPF_READS = {
    1: "MAP_LOOKUP_ELEM",
    4: "MAP_GET_NEXT_KEY",
    7: "OBJ_GET",
    11: "PROG_GET_NEXT_ID",
    12: "MAP_GET_NEXT_ID",
    13: "PROG_GET_FD_BY_ID",
    14: "MAP_GET_FD_BY_ID",
    15: "OBJ_GET_INFO_BY_FD",
    16: "PROG_QUERY",
    19: "BTF_GET_FD_BY_ID",
    20: "TASK_FD_QUERY",
    23: "BTF_GET_NEXT_ID",
    24: "MAP_LOOKUP_BATCH",
    30: "LINK_GET_FD_BY_ID",
    31: "LINK_GET_NEXT_ID",
}
BPF_CHANGES = {
    0: "MAP_CREATE",
    2: "MAP_UPDATE_ELEM",
    3: "MAP_DELETE_ELEM",
    5: "PROG_LOAD",
    6: "OBJ_PIN",
    8: "PROG_ATTACH",
    9: "PROG_DETACH",
    10: "PROG_TEST_RUN",
    18: "BTF_LOAD",
    21: "MAP_LOOKUP_AND_DELETE_ELEM",
    22: "MAP_FREEZE",
    25: "MAP_LOOKUP_AND_DELETE_BATCH",
    26: "MAP_UPDATE_BATCH",
    27: "MAP_DELETE_BATCH",
    28: "LINK_CREATE",
    29: "LINK_UPDATE",
    34: "LINK_DETACH",
    35: "PROG_BIND_MAP",
}
READS = ("setns", "exit_group")  # of the other calls: what changes nothing outside the process

# Arguments of calls on paths: pairs of (number of the directory's argument or None, number of the path's argument).
PATHS: dict[str, tuple[tuple[int | None, int], ...]] = {
    "open": ((None, 0),),
    "creat": ((None, 0),),
    "openat": ((0, 1),),
    "truncate": ((None, 0),),
    "rename": ((None, 0), (None, 1)),
    "renameat": ((0, 1), (2, 3)),
    "renameat2": ((0, 1), (2, 3)),
    "unlink": ((None, 0),),
    "unlinkat": ((0, 1),),
    "symlinkat": ((1, 2),),
    "symlink": ((None, 1),),
    "link": ((None, 0), (None, 1)),
    "linkat": ((0, 1), (2, 3)),
    "mkdir": ((None, 0),),
    "mkdirat": ((0, 1),),
    "rmdir": ((None, 0),),
    "chmod": ((None, 0),),
    "fchmodat": ((0, 1),),
    "utimensat": ((0, 1),),
    "mount": ((None, 1),),
    "umount2": ((None, 0),),
    "setxattr": ((None, 0),),
    "lsetxattr": ((None, 0),),
}
ON_A_FILE = (
    *("write", "writev", "pwrite64", "pwritev", "sendfile", "copy_file_range", "fallocate"),
    *("ftruncate", "fsync", "fdatasync", "sync_file_range", "syncfs", "fchmod", "fsetxattr"),
)
AT_FDCWD = -100
AT_REMOVEDIR = 0x200


@dataclass(frozen=True)
class Step:
    """One call. `number` counts what changes something, `read` the other calls since then (0: it is no read).

    `paths` are absolute; `data` is what a write writes, `offset` where.
    """

    number: int
    read: int
    call: str
    about: str
    paths: tuple[str, ...] = ()
    data: bytes = field(default=b"", repr=False)
    offset: int = 0
    flags: int = 0

    @property
    def address(self) -> tuple[int, int]:
        """The step's place in a run, the same in each run that does the same."""
        return self.number, self.read

    def __str__(self) -> str:
        number, read = self.address
        return f"{number}{f'.{read}' if read else ''} {self.call} {self.about}".rstrip()


@dataclass(frozen=True)
class Call:
    """A held call, explained. `counts`: it is a step at all; `changes`: it is more than a question."""

    name: str
    about: str
    counts: bool = True
    changes: bool = True
    paths: tuple[str, ...] = ()
    data: bytes = b""
    offset: int = 0
    flags: int = 0


def explain(held: Held) -> Call:
    """What the call is about. Raises OSError when the process is gone."""
    with open(f"/proc/{held.pid}/mem", "rb", buffering=0) as memory:
        return _explain(held, memory.fileno())


def _explain(held: Held, memory: int) -> Call:
    if held.name == "bpf":
        return _bpf(held, memory)
    if held.name in PATHS:
        paths = tuple(_path(held, memory, pair) for pair in PATHS[held.name])
        data, flags = b"", 0
        if held.name in ("symlink", "symlinkat"):
            data = _text(memory, held.arguments[0]).encode()
        if held.name in ("openat", "open"):
            flags = held.arguments[2 if held.name == "openat" else 1]
        if held.name == "unlinkat" and held.arguments[2] & AT_REMOVEDIR:
            return Call("rmdir", paths[0], paths=paths)
        return Call(held.name, " -> ".join(paths), paths=paths, data=data, flags=flags)
    if held.name in ON_A_FILE:
        return _on_a_file(held, memory)
    if held.name in ("sendto", "sendmsg"):
        return _send(held, memory)
    about = hex(held.arguments[0]) if held.name in ("unshare", "setns") else ""
    return Call(held.name, about, changes=held.name not in READS, counts=held.name != "exit_group")


def _bpf(held: Held, memory: int) -> Call:
    command, address, size = held.arguments[:3]
    attributes = os.pread(memory, min(size, 128), address).ljust(128, b"\0")
    name = BPF_CHANGES.get(command) or BPF_READS.get(command) or f"command {command}"
    return Call(
        f"bpf {name}",
        _bpf_about(held, memory, name, attributes),
        changes=command not in BPF_READS,
    )


def _bpf_about(held: Held, memory: int, name: str, attributes: bytes) -> str:
    """What the attributes of the commands that matter name, `union bpf_attr` in linux/bpf.h."""
    if name in ("OBJ_PIN", "OBJ_GET"):
        return _text(memory, struct.unpack_from("=Q", attributes)[0])
    if name == "PROG_LOAD":
        return _name(attributes, 48)
    if name == "MAP_CREATE":
        return _name(attributes, 28)
    if name in ("LINK_CREATE", "PROG_ATTACH", "PROG_DETACH"):
        return f"attach type {struct.unpack_from('=I', attributes, 8)[0]}"
    return ""


def _name(attributes: bytes, offset: int) -> str:
    return attributes[offset : offset + 16].split(b"\0")[0].decode("ascii", "replace")


def _text(memory: int, address: int) -> str:
    found = b""
    while b"\0" not in found and len(found) < 4096:
        room = 4096 - (address + len(found)) % 4096  # the next page may not be there
        found += os.pread(memory, room, address + len(found))
    return os.fsdecode(found.split(b"\0")[0])


def _path(held: Held, memory: int, pair: tuple[int | None, int]) -> str:
    directory, number = pair
    path = _text(memory, held.arguments[number])
    start = AT_FDCWD if directory is None else _signed(held.arguments[directory])
    base = f"/proc/{held.pid}/cwd" if start == AT_FDCWD else f"/proc/{held.pid}/fd/{start}"
    return os.path.normpath(os.path.join(os.readlink(base), path))


def _signed(value: int) -> int:
    return struct.unpack("=i", struct.pack("=I", value & 0xFFFFFFFF))[0]


def _on_a_file(held: Held, memory: int) -> Call:
    number = held.arguments[2 if held.name == "copy_file_range" else 0]
    link = f"/proc/{held.pid}/fd/{number}"
    path, mode = os.readlink(link), os.stat(link).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        return Call(held.name, path, counts=False)
    data, offset = b"", 0
    if held.name == "write":
        data = os.pread(memory, held.arguments[2], held.arguments[1])
        offset = _position(held.pid, number)
    elif held.name == "pwrite64":
        data = os.pread(memory, held.arguments[2], held.arguments[1])
        offset = held.arguments[3]
    elif held.name == "ftruncate":
        offset = held.arguments[1]
    return Call(held.name, path, paths=(path,), data=data, offset=offset)


def _position(pid: int, number: int) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as info:
        words = dict(line.split(None, 1) for line in info if " " in line or "\t" in line)
    if int(words["flags:"], 8) & os.O_APPEND:
        return os.stat(f"/proc/{pid}/fd/{number}").st_size
    return int(words["pos:"])


def _send(held: Held, memory: int) -> Call:
    """Messages on netlink sockets are steps; what goes over others (a log, a result) is none."""
    pidfd = os.pidfd_open(held.pid)
    try:
        with socket.socket(fileno=fetch(pidfd, held.arguments[0])) as copy:
            family = copy.family
    finally:
        os.close(pidfd)
    if family != socket.AF_NETLINK:
        return Call(held.name, "", counts=False)
    about = ""
    if held.name == "sendto":  # the type of a struct nlmsghdr, linux/netlink.h
        about = f"message {struct.unpack('=H', os.pread(memory, 2, held.arguments[1] + 4))[0]}"
    return Call(f"netlink {held.name}", about)
