# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The network that the machines of a run share: a bridge in a namespace of its own.

The host itself gets no interface.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from host import output
from layout import BRIDGE, Run

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000
IFF_MULTI_QUEUE = 0x0100
# linux/sched.h
CLONE_NEWNET = 0x40000000
# Room for encapsulated packets; what a machine's own interface takes is for its scenario to say.
MTU = 9000
NAMESPACES = Path("/run/netns")

_libc = ctypes.CDLL(None, use_errno=True)


def exists(run: Run) -> bool:
    return (NAMESPACES / run.namespace).exists()


def make(run: Run) -> None:
    """The namespace and its bridge, if they are not there."""
    if not exists(run):
        output("ip", "netns", "add", run.namespace)
    links = output("ip", "-n", run.namespace, "-br", "link")
    if BRIDGE not in links:
        _inside(
            run, "link", "add", BRIDGE, "mtu", str(MTU), "type", "bridge", "mcast_snooping", "0"
        )
    _inside(run, "link", "set", BRIDGE, "addrgenmode", "none", "up")


def remove(run: Run) -> None:
    """The namespace with all that is in it, if it is there."""
    if exists(run):
        output("ip", "netns", "delete", run.namespace)


@contextmanager
def tap(run: Run, address: int, queues: int) -> Iterator[list[int]]:
    """A port of the bridge for the machine of that address: one descriptor a queue, open meanwhile.

    The port is gone when the last descriptor is, with QEMU's copy of it.
    """
    name = f"tap{address}"
    with ExitStack() as stack:
        descriptors = []
        with _entered(run):
            for _each in range(queues):
                descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, descriptor)
                flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE
                # struct ifreq: the name, then a union of 24 bytes.
                fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                descriptors.append(descriptor)
        _inside(
            run, "link", "set", name, "mtu", str(MTU), "addrgenmode", "none", "master", BRIDGE, "up"
        )
        yield descriptors


def _inside(run: Run, *arguments: str) -> None:
    output("ip", "-n", run.namespace, *arguments)


@contextmanager
def _entered(run: Run) -> Iterator[None]:
    """This thread is in the run's network namespace."""
    with (
        open("/proc/thread-self/ns/net", "rb") as home,
        (NAMESPACES / run.namespace).open("rb") as there,
    ):
        _setns(there.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
