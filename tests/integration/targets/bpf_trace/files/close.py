# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""close.py COUNT: once a trace of close() runs, close descriptors that do not exist; print the id; end the trace."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import provoke

libc = ctypes.CDLL(None)
tracer = provoke.await_trace("closes")
for _call in range(int(sys.argv[1])):
    libc.close(1_000_000_007)
os.kill(tracer, signal.SIGINT)
print(os.getpid())
