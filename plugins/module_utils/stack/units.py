# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What runs the engine without Ansible: the command ebpf-fleet, and units of systemd that replay.

The command is there with the first stack and goes with the last. Of the units those are there that
a stack's current release asks for, enabled by the link that ``systemctl enable`` would make.
"""

from __future__ import annotations

import contextlib
import os
import sys

from ..bpf import files, journal
from ..resource.errors import Failure
from . import store
from .confirm import SYSTEMD

COMMAND = "/usr/local/sbin/ebpf-fleet"
_UNITS = "/etc/systemd/system"
_RELOAD = ("systemctl", "daemon-reload")
_PYTHON = "/usr/bin/python3"

_SCRIPT = """\
#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Installed by ebpf.fleet; goes with the last stack.
engine={engine}
for python in {python} python3 /usr/libexec/platform-python; do
    if command -v "$python" >/dev/null; then
        exec "$python" -I "$engine" "$@"
    fi
done
echo "ebpf-fleet: there is no python3" >&2
exit 1
"""

# DefaultDependencies=no: before anything that a service of the host could have started first.
_EARLY = """\
# SPDX-License-Identifier: BSD-2-Clause
# Installed by ebpf.fleet; goes with the last stack that needs it.
[Unit]
Description=eBPF stacks that are there before the network
Documentation=man:bpf(2)
DefaultDependencies=no
RequiresMountsFor={root} /usr/local/sbin
After=local-fs.target
Wants=network-pre.target
Before=network-pre.target sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} replay --phase early
TimeoutStartSec=600
SyslogIdentifier=ebpf-fleet

[Install]
WantedBy=sysinit.target
"""

_NETWORK = """\
# SPDX-License-Identifier: BSD-2-Clause
# Installed by ebpf.fleet; goes with the last stack that needs it.
[Unit]
Description=eBPF stacks that need the network's interfaces
Documentation=man:bpf(2)
RequiresMountsFor={root} /usr/local/sbin
Wants=network-online.target
After=network-online.target
Before=multi-user.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={command} replay --phase network
TimeoutStartSec=600
SyslogIdentifier=ebpf-fleet

[Install]
WantedBy=multi-user.target
"""

_TEMPLATES = {"early": (_EARLY, "sysinit.target"), "network": (_NETWORK, "multi-user.target")}
NEVER = "never"


def actions(boot: str, engine: str) -> list[str]:
    """What ``settle`` would install for a stack whose current release has this ``boot``."""
    if not engine:
        return []
    found = [] if _content(COMMAND) == _script() else [f"install {COMMAND}"]
    return found + [f"install {_unit(phase)}" for phase in _phases(boot) if not _is_there(phase)]


def settle(stack: str, boot: str, engine: str) -> None:
    """Install what the host needs with the stack's current release, remove what it does not.

    ``boot`` is empty when the stack has no current release, ``engine`` when none is installed, and
    there is nothing that a boot could run. Under a journal all is taken back.
    """
    if not engine:
        return
    others = _boots_of_others(stack)
    wanted = {phase for each in (boot, *others) for phase in _phases(each)}
    if boot or store.stacks():
        if _content(COMMAND) != _script():
            files.make_directories(os.path.dirname(COMMAND))
            files.write_atomic(COMMAND, _script(), 0o755)
    else:
        files.remove(COMMAND)
    surplus = [phase for phase in _TEMPLATES if phase not in wanted and _is_anywhere(phase)]
    lacking = [phase for phase in sorted(wanted) if not _is_there(phase)]
    if not surplus and not lacking:
        return
    # Noted first, so that it is undone last, with the files as they were.
    journal.undo("have systemd read its units again", _reload)
    for phase in surplus:
        files.remove(_wants(phase))
        files.remove(_unit(phase))
    for phase in lacking:
        files.make_directories(os.path.dirname(_wants(phase)))
        files.write_atomic(_unit(phase), _text(phase), 0o644)
        files.symlink_atomic(_unit(phase), _wants(phase))
    _reload()


def _phases(boot: str) -> list[str]:
    return [boot] if boot in _TEMPLATES and os.path.isdir(SYSTEMD) else []


def _boots_of_others(stack: str) -> list[str]:
    """Which phases the other stacks need; one that cannot be read may need any."""
    found: list[str] = []
    for name in store.stacks():
        if name == stack:
            continue
        try:
            state = store.load(name)
            if state.current:
                found.append(store.manifest(state, state.current).boot)
        except Failure:
            found += _TEMPLATES
    return found


def _is_anywhere(phase: str) -> bool:
    return os.path.lexists(_wants(phase)) or os.path.lexists(_unit(phase))


def _is_there(phase: str) -> bool:
    try:
        return os.readlink(_wants(phase)) == _unit(phase) and _content(_unit(phase)) == _text(phase)
    except OSError:
        return False


def _unit(phase: str) -> str:
    return f"{_UNITS}/ebpf-fleet-{phase}.service"


def _wants(phase: str) -> str:
    return f"{_UNITS}/{_TEMPLATES[phase][1]}.wants/ebpf-fleet-{phase}.service"


def _text(phase: str) -> bytes:
    return _TEMPLATES[phase][0].format(root=store.ROOT, command=COMMAND).encode()


def _script() -> bytes:
    engine = os.path.join(store.ROOT, store.ENGINE, "current")
    return _SCRIPT.format(engine=engine, python=_python()).encode()


def _python() -> str:
    """The interpreter that runs this, by the name that survives its upgrade if it has one."""
    same = os.path.realpath(_PYTHON) == os.path.realpath(sys.executable)
    return _PYTHON if same else sys.executable


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _reload() -> None:
    """Have systemd read its units. A failure is for nobody: the next boot reads them anyway."""
    import subprocess  # a run that changes nothing does without

    if os.path.isdir(SYSTEMD):
        with contextlib.suppress(OSError):
            subprocess.run(_RELOAD, capture_output=True, check=False)
