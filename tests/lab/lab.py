# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: ten hosts on this machine, driven by Ansible over ssh as a fleet is.

lab.py up        make what is missing
lab.py run       converge, converge again, verify, measure; leaves the lab up and accelerated
lab.py status    say what is there
lab.py report    write ebpf-fleet-report.html into the current directory: all of it on one page
lab.py down      leave no trace
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import demo
import fabric
import plays
from cgroups import LabError
from layout import FIGURES, STATE
from progress import step


def main(arguments: list[str]) -> int:
    commands = {"up": up, "run": demo.run, "down": down}
    command = arguments[0] if len(arguments) == 1 else ""
    try:
        if command == "status":
            fabric.require_root()
            print("\n".join(fabric.status()))
            return 0 if fabric.is_up() else 1
        if command == "report":
            fabric.require_root()
            print(f"file://{report()}")
            return 0
        if command not in commands:
            print(__doc__, file=sys.stderr)
            return 2
        fabric.require_root()
        with alone():
            commands[command]()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nlab: interrupted; `lab.py down` removes what is there", file=sys.stderr)
        return 130
    return 0


def up() -> None:
    with step("ten hosts: namespaces, sshd, nginx"):
        fabric.up()
    print("\n".join(fabric.status()))


def report() -> Path:
    """Run report.yml on the lab; returns where the page is."""
    if not fabric.is_up():
        raise LabError("the lab is not up: `make lab` makes it")
    page = Path.cwd() / "ebpf-fleet-report.html"
    given = {"report_file": str(page), "report_title": "The lab"}
    if FIGURES.exists():
        given["report_figures"] = str(FIGURES)
    with step("report.yml"):
        plays.play("report", "all", "-e", json.dumps(given))
    return page


def down() -> None:
    with step("the lab is taken away"):
        fabric.down()


@contextmanager
def alone() -> Iterator[None]:
    """One command at a time. The lock is on a directory that is there anyway: no trace."""
    directory = os.open(STATE.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise LabError("another lab command is running; wait for it") from None
    finally:
        os.close(directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
