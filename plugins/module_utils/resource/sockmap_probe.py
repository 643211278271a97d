# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Proof that data between two sockets of a control group skips the stack, or that it does not.

The probe has a network namespace of its own, so that the only bytes on its loopback interface are
its own and no port of the host is touched. It talks from a child of the control group, which the
programs attached to the group serve as well. Nothing of it is left afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import ipaddress
import json
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..bpf import cgroup, percpu, pins
from .errors import Failure, from_os_error

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_SIOCSIFFLAGS, _SIOCSIFADDR = 0x8914, 0x8916  # include/uapi/linux/sockios.h
_IFF_UP = 1
_TIMEOUT = 60  # seconds, for all of it
_CHILD = "ebpf-fleet-probe-"  # name of the child control group, less the process's number

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Request:
    """What to try. ``size`` is the bytes of a message, ``messages`` how many go each way."""

    cgroup: str
    address: str
    port: int
    messages: int
    size: int
    counters: str = ""  # pin of the data plane's counters


@dataclass(frozen=True)
class Result:
    """What was seen. Bytes count both ways; the interface's include all headers."""

    bytes_transferred: int
    bytes_on_interface: int
    counted: dict[str, int]  # how much each of the data plane's counters rose meanwhile
    totals: dict[str, int]  # what they say afterwards


def run(request: Request) -> Result:
    """Send the messages to and fro, and say which way they took.

    Raises Failure when the probe cannot run, or when a byte did not arrive as it was sent.
    """
    before = _counters(request.counters)
    with _child_cgroup(request.cgroup) as path:
        seen = _in_a_child(request, path)
    after = _counters(request.counters)
    return Result(
        bytes_transferred=seen["transferred"],
        bytes_on_interface=seen["interface"],
        counted={name: after[name] - before.get(name, 0) for name in after},
        totals=after,
    )


def _counters(pin: str) -> dict[str, int]:
    if not pin:
        return {}
    try:
        with pins.get(pin) as fd:
            return percpu.totals(fd)
    except OSError as error:
        raise from_os_error(error, f"read the counters at {pin}") from error
    except ValueError as error:
        raise Failure(f"{pin} holds no counters: {error}") from error


@contextlib.contextmanager
def _child_cgroup(declared: str) -> Iterator[str]:
    parent = cgroup.locate(declared)
    if not os.path.isdir(parent) or not cgroup.is_cgroup2(parent):
        raise Failure(f"{parent} is no cgroup2 control group; name one that exists")
    _remove_leftovers(parent)
    path = os.path.join(parent, f"{_CHILD}{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError as error:
        raise from_os_error(error, f"make the control group {path}") from error
    try:
        yield path
    finally:
        _remove(path)


def _remove_leftovers(parent: str) -> None:
    """What probes left that were killed. One that still runs is left alone."""
    for name in os.listdir(parent):
        if name.startswith(_CHILD) and not os.path.exists(f"/proc/{name[len(_CHILD) :]}"):
            with contextlib.suppress(OSError):  # its child may still have seconds to live
                os.rmdir(os.path.join(parent, name))


def _remove(path: str) -> None:
    """A control group is busy until its last process has been reaped."""
    for _try in range(50):
        try:
            os.rmdir(path)
        except OSError:
            time.sleep(0.02)
        else:
            return
    os.rmdir(path)


def _in_a_child(request: Request, path: str) -> dict[str, Any]:
    """Fork, since a process cannot leave a network namespace or a control group unnoticed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(_probe(request, path)).encode())
        os._exit(0)
    os.close(writer)
    timer = threading.Timer(_TIMEOUT, os.kill, (child, signal.SIGKILL))
    timer.start()
    try:
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
    finally:
        timer.cancel()
        os.waitpid(child, 0)
    if not answer:
        raise Failure(
            f"the probe in {request.cgroup} did not end within {_TIMEOUT} s, or was killed; try it "
            "with fewer messages, and look for what is short there: memory.max, pids.max"
        )
    seen: dict[str, Any] = json.loads(answer)
    if "error" in seen:
        place = f"{request.cgroup}, {request.address} port {request.port}"
        raise Failure(f"the probe in {place} failed: {seen['error']}")
    return seen


def _probe(request: Request, path: str) -> dict[str, Any]:
    try:
        with open(os.path.join(path, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        if _libc.unshare(_CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "make a network namespace")
        _loopback_up(request.address)
        start = _interface_bytes()
        transferred = _exchange(request)
        return {"transferred": transferred, "interface": _interface_bytes() - start}
    except OSError as error:
        return {"error": str(error)}


def _loopback_up(address: str) -> None:
    """Raise ``lo``; give it the address unless it has it by itself."""
    name = b"lo"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", name, _IFF_UP))
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback:
        return
    if isinstance(parsed, ipaddress.IPv4Address):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            place = struct.pack("=HH4s8x", socket.AF_INET, 0, parsed.packed)
            fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("16s16s8x", name, place))
        return
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        index = socket.if_nametoindex("lo")
        # struct in6_ifreq, include/uapi/linux/ipv6.h; a /128 on lo needs no duplicate detection
        fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("=16sIi", parsed.packed, 128, index))


def _interface_bytes() -> int:
    """Bytes that ``lo`` has received in this network namespace."""
    with open("/proc/self/net/dev", encoding="ascii") as file:
        for line in file:
            name, _colon, figures = line.partition(":")
            if name.strip() == "lo":
                return int(figures.split()[0])
    return 0


def _exchange(request: Request) -> int:
    """Messages to and fro, checked when they are back. Returns the bytes of both ways."""
    family = socket.AF_INET6 if ":" in request.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((request.address, request.port))
        listener.listen(1)
        listener.settimeout(_TIMEOUT)
        with socket.create_connection((request.address, request.port), _TIMEOUT) as connection:
            # Accepted first: a busy host may have let connect() return before it took in the ACK,
            # and what is sent to a socket that is not there yet goes through TCP, and so the rest.
            echo = threading.Thread(target=_echo, args=(listener.accept()[0],), daemon=True)
            echo.start()
            for number in range(request.messages):
                message = _message(number, request.size)
                connection.sendall(message)
                if _receive(connection, request.size) != message:
                    raise OSError(f"message {number} did not come back as it was sent")
        echo.join(_TIMEOUT)
    return 2 * request.messages * request.size


def _message(number: int, size: int) -> bytes:
    block = hashlib.sha256(str(number).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(size)
        if not part:
            raise OSError("the connection was closed early")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _echo(connection: socket.socket) -> None:
    """Send back what comes. When that fails, the other side has the error to tell."""
    with contextlib.suppress(OSError), connection:
        while True:
            part = connection.recv(1 << 16)
            if not part:
                return
            connection.sendall(part)
