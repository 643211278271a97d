# SPDX-License-Identifier: GPL-3.0-or-later
"""A process that lives in one cgroup and one network namespace and makes sockets there.

A socket belongs for life to the namespace and cgroup of the process that made it, whoever uses it afterwards. So the
tests ask a broker for a socket and then read as one straight line, in one process.

Run as `broker.py FD CGROUP NETNS`: FD is a SEQPACKET socket; CGROUP a directory or "" to stay; NETNS a namespace file
or "" for a new namespace. Dies with its parent, and an unnamed namespace with it: nothing is left after a crash.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import signal
import socket
import sys

CLONE_NEWNET = 0x40000000  # linux/sched.h
PR_SET_PDEATHSIG = 1  # linux/prctl.h

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def move(cgroup: str, netns: str) -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if cgroup:
        with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
            procs.write("0")
    if netns:
        descriptor = os.open(netns, os.O_RDONLY)
        check(libc.setns(descriptor, CLONE_NEWNET))
        os.close(descriptor)
    else:
        check(libc.unshare(CLONE_NEWNET))


def serve(control: socket.socket) -> None:
    control.send(b"ready")
    while True:
        request = control.recv(4096)
        if not request:
            return
        try:
            made = socket.socket(*json.loads(request))
        except OSError as error:
            control.send(str(error.errno).encode())
            continue
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))]
        control.sendmsg([b"0"], rights)
        made.close()


if __name__ == "__main__":
    move(sys.argv[2], sys.argv[3])
    serve(socket.socket(fileno=int(sys.argv[1])))
