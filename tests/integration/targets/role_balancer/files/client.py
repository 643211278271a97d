# SPDX-License-Identifier: GPL-3.0-or-later
"""client.py NETNS ADDRESS COUNT: asks so many times on new connections; prints who answered how often."""

from __future__ import annotations

import collections
import ctypes
import http.client
import json
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


def ask(address: str) -> str:
    """Who answers, or what goes wrong."""
    connection = http.client.HTTPConnection(address, 80, timeout=20)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError as error:
        return type(error).__name__
    finally:
        connection.close()


def main() -> None:
    """Ask and count."""
    with open(f"/run/netns/{sys.argv[1]}") as namespace:
        if LIBC.setns(namespace.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    print(json.dumps(collections.Counter(ask(sys.argv[2]) for dummy in range(int(sys.argv[3])))))


main()
