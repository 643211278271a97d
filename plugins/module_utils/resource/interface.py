# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The interface that an attachment names, in the network namespace that it names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..bpf import netns, rtnetlink
from ..bpf.rtnetlink import Interface
from .errors import Failure, from_os_error


def check_netns(name: str) -> str:
    """The declared namespace. Raises Failure for what is neither a name nor an absolute path."""
    if name and (name in (".", "..") or ("/" in name and not name.startswith("/"))):
        raise Failure(
            f"netns {name!r} is neither a name (as ip netns lists it) nor an absolute path "
            "such as /proc/PID/ns/net"
        )
    return name


def place(name: str, namespace: str) -> str:
    """The interface, for people."""
    return f"{name} (netns {namespace})" if namespace else name


@contextlib.contextmanager
def in_netns(namespace: str) -> Iterator[None]:
    """Be in the declared namespace. Raises Failure when it is none."""
    path = netns.path_of(namespace)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(netns.entered(path))
        except FileNotFoundError as error:
            raise _missing(namespace, path) from error
        except OSError as error:
            advice = f"{path} is no network namespace; those with a name are: {_named()}"
            raise from_os_error(error, f"enter netns {namespace}", advice) from error
        yield


def exists(namespace: str) -> bool:
    """Whether there is such a namespace; when it is gone, so is all that was attached there."""
    return not namespace or os.path.exists(netns.path_of(namespace))


def find(name: str, namespace: str) -> Interface:
    """The interface in the current namespace. Raises Failure when there is none."""
    found = rtnetlink.interface(name)
    if found is None:
        there = ", ".join(each.name for each in rtnetlink.interfaces())
        where = f"in netns {namespace}" if namespace else "in this network namespace"
        raise Failure(
            f"there is no interface {name} {where}, only: {there}; correct the name, set netns, "
            "or create the interface first"
        )
    return found


def _missing(namespace: str, path: str) -> Failure:
    return Failure(
        f"there is no netns {namespace} ({path}); create it first (ip netns add), or name one of: "
        f"{_named()}"
    )


def _named() -> str:
    return ", ".join(netns.named()) or "(none has a name here)"
