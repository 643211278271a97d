# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images and machines as molecule/matrix.yml declares them; the rest is ../scenarios.py's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from problem import Problem

FILE = Path(__file__).resolve().parents[1] / "matrix.yml"
# How systemd mounts cgroups; from version 256 on, hybrid would need another option beside this one.
HIERARCHIES = {
    "unified": "systemd.unified_cgroup_hierarchy=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0",
}
ADDRESSES = range(2, 255)


@dataclass(frozen=True)
class Kernel:
    """The newest cloud kernel of a suite; `headers` are what BCC compiles against."""

    name: str
    suite: str
    headers: bool = False


@dataclass(frozen=True)
class Image:
    """A root file system: a suite, packages, and the kernels that machines boot it with."""

    name: str
    suite: str
    packages: tuple[str, ...]
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Machine:
    """A virtual machine. `memory` is in MiB, `address` is the last number of its addresses."""

    name: str
    image: Image
    kernel: str
    address: int
    hierarchy: str
    why: str
    memory: int = 768
    cpus: int = 2

    @property
    def ipv4(self) -> str:
        return f"10.77.0.{self.address}"

    @property
    def ipv6(self) -> str:
        return f"fd77::{self.address:x}"

    @property
    def kernels(self) -> list[str]:
        """What it can be booted with: its disk has the modules of these."""
        return [kernel.name for kernel in self.image.kernels]


def load(path: Path = FILE) -> dict[str, Machine]:
    """The machines of that file by name. Raises Problem, naming what is wrong with them."""
    machines = parse(yaml.safe_load(path.read_text(encoding="utf-8")))
    if found := list(faults(machines)):
        raise Problem(f"{path}: " + "; ".join(found))
    return {machine.name: machine for machine in machines}


def parse(data: dict[str, Any]) -> list[Machine]:
    """The machines in `data`, unchecked. Raises KeyError and TypeError for wrong keys."""
    images = {
        name: _image(name, data["packages"], **declared)
        for name, declared in data["images"].items()
    }
    return [
        Machine(name=name, **{**declared, "image": images[declared["image"]]})
        for name, declared in data["machines"].items()
    ]


def _image(
    name: str, common: list[str], suite: str, packages: list[str], kernels: dict[str, Any]
) -> Image:
    return Image(
        name=name,
        suite=suite,
        packages=tuple(sorted({*common, *packages})),
        kernels=tuple(Kernel(name=kernel, **declared) for kernel, declared in kernels.items()),
    )


def faults(machines: list[Machine]) -> Iterator[str]:
    """What keeps these machines from being booted together, each in words."""
    for machine in machines:
        if machine.kernel not in machine.kernels:
            yield f"{machine.name}: image {machine.image.name} has no kernel {machine.kernel}"
        if machine.hierarchy not in HIERARCHIES:
            yield f"{machine.name}: hierarchy is one of {', '.join(HIERARCHIES)}"
        if machine.address not in ADDRESSES:
            yield f"{machine.name}: address is from {ADDRESSES[0]} to {ADDRESSES[-1]}"
    if len({machine.address for machine in machines}) < len(machines):
        yield "two machines have the same address"
