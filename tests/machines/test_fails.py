# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With machines: what a module does not do is noticed there, and nothing stays of a run that failed or was interrupted."""

from __future__ import annotations

import signal
import subprocess
import time

import checkout
from checkout import Checkout

BOOTING = 300.0  # seconds until there is a process of QEMU: an image may have to be made first
ENDING = 90.0


# Says in check mode, in a first run and in a second one what a module should say, and does nothing.
LIAR = """
    import os

    again = os.path.exists("/run/liar")
    if not module.check_mode:
        open("/run/liar", "w").close()
    module.exit_json(changed=not again, actions=[], attachment={})
"""


def test_a_module_that_does_nothing_is_noticed_by_verify(copy: Checkout) -> None:
    copy.break_file(
        "plugins/modules/xdp_attach.py", "\n    front.run(module, xdp, xdp.desired)\n", LIAR
    )
    done = copy.run("--sample", "modules")
    assert done.returncode == 1, done.stdout
    assert "modules on trixie: failed in verify" in done.stdout, done.stdout
    assert "XDP is native on the card" in done.stdout
    assert checkout.traces() == []


def test_an_interrupted_run(copy: Checkout) -> None:
    process = subprocess.Popen(
        [copy.root / ".venv/bin/python", "molecule/run.py", "modules"],
        cwd=copy.root,
        env=copy.environment(EBPF_FLEET_MACHINES="trixie"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + BOOTING
        while not any(trace.startswith("process") for trace in checkout.traces()):
            assert process.poll() is None, "it has ended before a machine was there"
            assert time.monotonic() < deadline, "no machine is booted"
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=ENDING) == 130
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert checkout.traces() == []
