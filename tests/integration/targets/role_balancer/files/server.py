# SPDX-License-Identifier: GPL-3.0-or-later
"""server.py NETNS PORT: answers every request with the name of its namespace, until it is killed."""

from __future__ import annotations

import ctypes
import http.server
import os
import sys

LIBC = ctypes.CDLL(None, use_errno=True)


class Answer(http.server.BaseHTTPRequestHandler):
    """Says who it is."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, whatever the path."""
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Keep quiet."""


def main() -> None:
    """Serve."""
    with open(f"/run/netns/{sys.argv[1]}") as namespace:
        if LIBC.setns(namespace.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    http.server.ThreadingHTTPServer(("", int(sys.argv[2])), Answer).serve_forever()


main()
