# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancer under test, driven by the engine that the modules drive; bpftool is the witness of what it did."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topology import Node

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import engine, prog, xdp
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import model, services

ROOT = Path(__file__).resolve().parents[2]
OBJECT = Path(os.environ.get("XDP_LB_OBJECT", ROOT / "roles/xdp_lb/files/xdp_lb.bpf.o"))
MAGLEV = ROOT / "roles/xdp_lb/files/maglev.bpf.o"
PROGRAM = "xdp_lb"
PINS = Path("/sys/fs/bpf/ebpf_fleet")
RING_SLOTS = 65537  # layout.h
LOCK_SECONDS = 60

# What bpf_prog takes; the engine wants every one of its options.
PROG_OPTIONS: dict[str, Any] = {
    "state": "present",
    "compiler": "clang",
    "on_incompatible_map": "fail",
    "force": False,
    "discard_maps": False,
    **dict.fromkeys(
        ("object", "source", "cflags", "sha256", "pin", "program", "pin_dir", "programs", "type")
    ),
    **dict.fromkeys(("attach_type", "maps", "pin_maps", "map_max_entries", "constants")),
    **dict.fromkeys(("stack", "release", "labels")),
}

Service = dict[str, Any]


def enumeration(name: str) -> list[str]:
    """The constants of one of layout.h's enums, from 0 on: bpftool prints enums as numbers."""
    text = (ROOT / "bpf/xdp_lb/layout.h").read_text()
    found = re.search(rf"enum {name} \{{(.*?)\}}", text, re.DOTALL)
    assert found, name
    return re.findall(r"^\t([A-Z_]+)", found[1], re.MULTILINE)


REASONS = enumeration("reason")
HEALTHS = enumeration("backend_health")


def bpftool(*arguments: object) -> Any:
    words = [str(argument) for argument in arguments]
    done = subprocess.run(["bpftool", "-j", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bpftool {' '.join(words)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout or "null")


def service(
    name: str,
    vip: str,
    forwarding: str,
    backends: Sequence[Mapping[str, Any]],
    port: int | str = 80,
    protocol: str = "tcp",
    **more: Any,
) -> Service:
    """One service as an operator declares it."""
    return {
        "name": name,
        "vip": vip,
        "port": str(port),
        "protocol": protocol,
        "forwarding": forwarding,
        "backends": [dict(backend) for backend in backends],
        **more,
    }


def all_services(
    vip: str, forwarding: str, backends: Sequence[Mapping[str, Any]], **more: Any
) -> list[Service]:
    """Everything that the backends offer, through one virtual address."""
    offered = (
        ("web", 80, "tcp"),
        ("lines", 7000, "tcp"),
        ("uploads", 7001, "tcp"),
        ("dns", 53, "udp"),
    )
    return [
        service(f"{name}-{vip}", vip, forwarding, backends, port, protocol, **more)
        for name, port, protocol in offered
    ]


@dataclass
class Balancer:
    """One balancer. Its pins have its box's name."""

    node: Node
    declared: list[Service] = field(default_factory=list)
    release: int = 0
    max_entries: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def pins(self) -> Path:
        return PINS / self.node.name

    @property
    def maps(self) -> Path:
        return self.pins / "maps"

    def load(self) -> engine.Outcome:
        """Load the object as the next release, over the one before, with its maps."""
        self.release += 1
        options = {"pin_maps": f"{self.node.name}/maps", "map_max_entries": dict(self.max_entries)}
        return self._pinned(PROGRAM, OBJECT, release=str(self.release), **options)

    def load_maglev(self) -> engine.Outcome:
        """The program that computes the rings, where the engine looks for it."""
        return self._pinned("maglev", MAGLEV)

    def _pinned(self, program: str, path: Path, **more: Any) -> engine.Outcome:
        pin = f"{self.node.name}/{program}"
        options = {**PROG_OPTIONS, "object": str(path), "pin": pin, "program": program, **more}
        return engine.converge(prog, prog.desired(options), False, LOCK_SECONDS)

    def attach(self, state: str = "present", mode: str = "native") -> engine.Outcome:
        """Attach what is loaded, by link; or update the link to it."""
        options = {
            "state": state,
            "interface": "eth0",
            "netns": self.node.netns,
            "prog": f"{self.node.name}/{PROGRAM}",
            "link": f"{self.node.name}/link",
            "mode": mode,
            "force": False,
        }
        return engine.converge(xdp, xdp.desired(options), False, LOCK_SECONDS)

    def detach(self) -> None:
        self.attach("absent")

    def declare(
        self, wanted: Sequence[Service], check: bool = False, **more: Any
    ) -> engine.Outcome:
        """Converge the services to what is declared."""
        options = {
            "state": "present",
            "pin_dir": self.node.name,
            "netns": self.node.netns,
            "services": list(wanted),
            "sources": self.sources,
            **more,
        }
        outcome = engine.converge(services, model.desired(options), check, LOCK_SECONDS)
        if not check:
            self.declared = list(wanted)
        return outcome

    def dump(self, name: str) -> list[Any]:
        """A map's entries as bpftool formats them."""
        return [entry["formatted"] for entry in bpftool("map", "dump", "pinned", self.maps / name)]

    def reasons(self) -> dict[str, int]:
        """Why packets were not forwarded, summed over the CPUs."""
        return {
            REASONS[entry["key"]]: sum(int(cpu["value"]) for cpu in entry["values"])
            for entry in self.dump("reasons")
        }

    def healths(self) -> list[str]:
        """What the health service has found of each backend."""
        entries = (entry["value"] for entry in self.dump("backends"))
        return [HEALTHS[int(entry["health"])] for entry in entries if int(entry["family"])]

    def program(self) -> dict[str, Any]:
        """The program that the interface runs now, by id and name, and in which mode."""
        shown = json.loads(self.node.run("ip", "-d", "-j", "link", "show", "dev", "eth0"))[0]
        found = shown.get("xdp", {})
        return {"id": found.get("prog", {}).get("id"), "mode": found.get("mode")}


@contextmanager
def running(node: Node, max_entries: Mapping[str, int] | None = None) -> Iterator[Balancer]:
    """A balancer that is loaded and attached but serves nothing; all of it is gone afterwards."""
    made = Balancer(node, max_entries=max_entries or {})
    try:
        made.load_maglev()
        made.load()
        made.attach()
        yield made
    finally:
        remove(made)


def remove(balancer: Balancer) -> None:
    balancer.detach()
    remove_pins(balancer.pins)


def remove_pins(directory: Path) -> None:
    if directory.is_dir():
        for entry in directory.iterdir():
            remove_pins(entry)
        directory.rmdir()
    elif directory.exists():
        directory.unlink()
