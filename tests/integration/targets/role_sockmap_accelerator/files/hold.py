# SPDX-License-Identifier: GPL-3.0-or-later
"""hold.py CGROUP PORT FILE SECONDS: hold an idle connection on loopback until FILE is gone."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

cgroup, port, name, seconds = sys.argv[1:]
marker = Path(name)
marker.touch()
Path(cgroup, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
end = time.monotonic() + float(seconds)
with socket.create_server(("127.0.0.1", int(port))) as server:
    near = socket.create_connection(("127.0.0.1", int(port)))
    far = server.accept()[0]
    near.sendall(b"hello")
    far.recv(5)
    while marker.exists() and time.monotonic() < end:
        time.sleep(0.1)
    near.close()
    far.close()
marker.unlink(missing_ok=True)
