# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a run: its machines, how to reach them, and the groups of every scenario."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from declared import Machine
from fleet import State, known
from layout import Run
from reach import PERSIST
from scenarios import Matrix

INTERFACE = "eth1"


def write(run: Run, machines: dict[str, Machine], matrix: Matrix, path: Path) -> None:
    """Write the inventory of the machines that are up."""
    hosts = {name: host(run, machines[name], state) for name, state in known(run).items()}
    sample = bool(os.environ.get("EBPF_FLEET_SAMPLE"))
    inventory = {"all": {"hosts": hosts, "children": groups(matrix, tuple(hosts), sample=sample)}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(inventory, sort_keys=False), encoding="utf-8")


def host(run: Run, machine: Machine, state: State) -> dict[str, Any]:
    """The variables of one machine."""
    return {
        "ansible_host": machine.name,
        "ansible_connection": "ssh",
        "ansible_user": "root",
        "ansible_ssh_args": " ".join(["-F", str(run.ssh_config), *PERSIST]),
        "ansible_control_path_dir": str(run.ssh_masters),
        "ansible_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
        "machine_address": machine.ipv4,
        "machine_address6": machine.ipv6,
        "machine_interface": INTERFACE,
        "machine_kernel": machine.kernel,
        "machine_kernels": machine.kernels,
        "machine_kernel_release": state.release,
        "machine_image": machine.image.name,
        "machine_hierarchy": machine.hierarchy,
        "machine_libbpf": state.libbpf,
        "machine_facts": {
            "debian": state.debian,
            "kernel": state.release,
            "libbpf": state.libbpf,
            "python": state.python,
        },
    }


def groups(matrix: Matrix, booted: tuple[str, ...], *, sample: bool) -> dict[str, Any]:
    """scenario_NAME and NAME_GROUP for every scenario; empty where it lacks a machine."""
    found: dict[str, list[str]] = {}
    for scenario in matrix.scenarios:
        there = scenario.on(booted, sample=sample)
        found[f"scenario_{scenario.name}"] = list(there)
        for group, members in scenario.groups.items():
            found[f"{scenario.name}_{group}"] = [name for name in members if name in there]
    return {name: {"hosts": {member: {} for member in members}} for name, members in found.items()}
