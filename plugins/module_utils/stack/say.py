# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the engine says when no Ansible listens: at boot, and as a guard.

Under systemd a line goes to standard error with its priority before it (sd-daemon(3)), which the
journal understands. Elsewhere it goes to syslog as well, as nobody may read standard error.
"""

from __future__ import annotations

import os
import sys
import syslog

ERROR, WARNING, INFO = syslog.LOG_ERR, syslog.LOG_WARNING, syslog.LOG_INFO

_NAME = "ebpf-fleet"


def say(priority: int, text: str) -> None:
    """Tell the operator; ``priority`` is one of syslog(3)."""
    journal = _is_journal()
    for line in text.splitlines():
        if journal:
            sys.stderr.write(f"<{priority}>{line}\n")
            continue
        sys.stderr.write(f"{_NAME}: {line}\n")
        syslog.openlog(_NAME, syslog.LOG_PID, syslog.LOG_DAEMON)
        syslog.syslog(priority, line)
    sys.stderr.flush()


def _is_journal() -> bool:
    """Whether standard error is the journal's: JOURNAL_STREAM of systemd.exec(5)."""
    error = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{error.st_dev}:{error.st_ino}"
