# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts are converged to: as a stack, as single tasks, and as a shell script around bpftool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROLES = HERE.parents[1] / "roles"
BASE = "/sys/fs/bpf/ebpf_fleet"
SERVICES, BACKENDS = 100, 10  # BACKENDS of each service
CGROUP = "bench"
SHELL_PINS = "/sys/fs/bpf/bench"
INTERFACE = "eth0"
PREFIX = "ebpf.fleet"
MAX_SOCKETS = 4096

Resource = dict[str, dict[str, Any]]
Task = dict[str, Any]


@dataclass(frozen=True)
class State:
    """A state: its resources, which are single tasks as well, and files that the shell's way copies.

    objects: of each release, in turn; they differ in nothing that matters. resources: with one of
    them. script: does the same with bpftool, see there. maps: whose entries it has to be given.
    """

    name: str
    objects: tuple[Path, Path]
    resources: Callable[[Path], list[Resource]]
    script: Path
    maps: tuple[str, ...] = ()
    boot: str = "early"

    def stack(self, release: int) -> Task:
        """The task that makes release 0 or 1 of the stack what the host runs."""
        options = {
            "name": self.name,
            "resources": self.resources(self.objects[release]),
            "boot": self.boot,
        }
        return {f"{PREFIX}.bpf_stack": options}

    def no_stack(self) -> Task:
        return {f"{PREFIX}.bpf_stack": {"name": self.name, "state": "absent"}}

    def tasks(self, release: int) -> list[Task]:
        """The same, a task each."""
        return [
            {f"{PREFIX}.{kind}": options}
            for resource in self.resources(self.objects[release])
            for kind, options in resource.items()
        ]

    def no_tasks(self) -> list[Task]:
        """The tasks that take away what the single ones made, in reverse."""
        made = [_removal(task) for task in reversed(self.tasks(0))]
        return [task for task in made if task]


# What each module wants to know of what it takes away; the rest goes with the programs and maps.
_REMOVED_BY: Mapping[str, tuple[str, ...]] = {
    "bpf_prog": ("pin", "program", "pin_dir", "programs", "pin_maps"),
    "xdp_attach": ("interface", "link"),
    "cgroup_attach": ("cgroup", "link"),
    "sockmap_attach": ("map", "link", "prog", "link_fallback"),
}


def _removal(task: Task) -> Task | None:
    ((name, options),) = task.items()
    kept = _REMOVED_BY.get(name.rpartition(".")[2])
    if kept is None:
        return None
    identity = {key: value for key, value in options.items() if key in kept}
    discard = {"discard_maps": True} if "pin_maps" in identity else {}
    return {name: {**identity, **discard, "state": "absent"}}


def another(built: Path, scratch: Path) -> Path:
    """An object with another digest and the same programs: what an upgrade brings."""
    made = scratch / f"next-{built.name}"
    made.write_bytes(built.read_bytes() + b"\0")
    return made


def accelerator(scratch: Path) -> State:
    """The sockmap accelerator as its role declares it."""
    built = ROLES / "sockmap_accelerator/files/sockmap.bpf.o"
    base = f"{BASE}/sockmap"
    maps = f"{base}/maps"

    def resources(at: Path) -> list[Resource]:
        sizes = {"sockets": MAX_SOCKETS, "peers": MAX_SOCKETS}
        redirector = {"map": f"{maps}/sockets", "prog": f"{base}/sockmap_redirect"}
        link = {"link": f"{base}/redirect_link", "link_fallback": True}
        return [
            {"bpffs": {}},
            {
                "bpf_prog": {
                    "object": str(at),
                    "pin_dir": base,
                    "pin_maps": maps,
                    "map_max_entries": sizes,
                }
            },
            _entries(f"{maps}/policy_ports", "{{ [8080] | ebpf.fleet.port_prefixes(1) }}"),
            _entries(f"{maps}/policy_cidrs", "{{ ['127.0.0.0/8'] | ebpf.fleet.cidr_prefixes(1) }}"),
            _settings(maps),
            {"sockmap_attach": {**redirector, **link}},
            {
                "cgroup_attach": {
                    "cgroup": CGROUP,
                    "prog": f"{base}/sockmap_establish",
                    "link": f"{base}/cgroups/bench",
                }
            },
        ]

    script = HERE / "converge_sockmap.sh"
    return State("sockmap", (built, another(built, scratch)), resources, script)


def _entries(where: str, entries: str) -> Resource:
    return {"bpf_map_entries": {"map": where, "entries": entries, "purge": True}}


def _settings(maps: str) -> Resource:
    nothing = {"draining": 0, "events": 0}
    entries = [{"key": 0, "value": nothing}]
    return {"bpf_map_entries": {"map": f"{maps}/settings", "entries": entries}}


def balancer(scratch: Path) -> State:
    """The load balancer with its services, as its role declares it, without the health checks."""
    built = ROLES / "xdp_lb/files/xdp_lb.bpf.o"
    maglev = ROLES / "xdp_lb/files/maglev.bpf.o"
    base = f"{BASE}/xdp_lb"

    def resources(at: Path) -> list[Resource]:
        main = {"object": str(at), "pin": f"{base}/xdp_lb", "program": "xdp_lb"}
        helper = {"object": str(maglev), "pin": f"{base}/maglev", "program": "maglev"}
        services = {"pin_dir": base, "services": balanced()}
        attached = {"interface": INTERFACE, "prog": f"{base}/xdp_lb", "link": f"{base}/links/eth0"}
        return [
            {"bpffs": {}},
            {"bpf_prog": {**main, "pin_maps": f"{base}/maps"}},
            {"bpf_prog": helper},
            {"xdp_lb_services": services},
            {"xdp_attach": {**attached, "mode": "native"}},
        ]

    script = HERE / "converge_xdp_lb.sh"
    maps = ("services4", "backends", "service_names", "settings", "service_filter")
    objects = (built, another(built, scratch))
    return State("xdp_lb", objects, resources, script, maps, boot="network")


def balanced() -> list[dict[str, Any]]:
    """The services, each with an address of its own, on the same servers with other weights."""
    return [
        {
            "name": f"service{number:03d}",
            "vip": f"192.0.2.{1 + number}",
            "port": "80",
            "protocol": "tcp",
            "forwarding": "dsr",
            "backends": [
                {"address": f"10.77.0.{101 + each}", "weight": 1 + (number + each) % BACKENDS}
                for each in range(BACKENDS)
            ],
        }
        for number in range(SERVICES)
    ]
