# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and paths of one run of machines. Nothing here does anything."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from problem import Problem

MACHINES = Path(__file__).resolve().parent
GUEST = MACHINES / "guest"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ebpf-fleet"
IMAGES = CACHE / "images"
PREFIX = "ebpf-fleet-machines-"
BRIDGE = "br0"
NAME_LENGTH = 20


@dataclass(frozen=True)
class Run:
    """Machines that are up at the same time and share a network.

    All that a run has on this host but its network namespace is in its directory, whose name is
    short, since ssh puts sockets there.
    """

    name: str

    @property
    def directory(self) -> Path:
        return Path("/var/tmp") / f"{PREFIX}{self.name}"

    @property
    def namespace(self) -> str:
        return f"{PREFIX}{self.name}"

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def ssh_masters(self) -> Path:
        return self.directory / "ssh"

    def of(self, machine: str) -> Path:
        """The directory of one machine."""
        return self.directory / "machines" / machine

    def console(self, machine: str) -> Path:
        return self.of(machine) / "console.log"

    def state(self, machine: str) -> Path:
        return self.of(machine) / "state.json"

    def disk(self, machine: str) -> Path:
        return self.of(machine) / "disk.qcow2"


def this_run() -> Run:
    """The run that EBPF_FLEET_RUN names."""
    name = os.environ.get("EBPF_FLEET_RUN") or "molecule"
    if not name.isidentifier() or len(name) > NAME_LENGTH:
        raise Problem(f"EBPF_FLEET_RUN={name}: use up to {NAME_LENGTH} letters, digits and _")
    return Run(name)


def wanted_machines() -> list[str]:
    """The machines that EBPF_FLEET_MACHINES names; none means all of them."""
    return os.environ.get("EBPF_FLEET_MACHINES", "").replace(",", " ").split()
