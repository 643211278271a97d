# SPDX-License-Identifier: GPL-3.0-or-later
"""The stacks that the proof is about, as the controller would send them: requests with their objects beside them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.ebpf.fleet.plugins.filter.cidr_prefixes import cidr_prefixes
from ansible_collections.ebpf.fleet.plugins.filter.port_prefixes import port_prefixes
from ansible_collections.ebpf.fleet.plugins.module_utils import options

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SOCKMAP = ROOT / "roles/sockmap_accelerator/files/sockmap.bpf.o"
XDP_LB = ROOT / "roles/xdp_lb/files/xdp_lb.bpf.o"
MAGLEV = ROOT / "roles/xdp_lb/files/maglev.bpf.o"
CONFIG = "/run/ebpf-fleet-test/edge.conf"
INTERFACE = "veth"

Document = dict[str, Any]
Resource = dict[str, dict[str, Any]]

# A TCP segment to nobody in particular: what the gate sends through the program.
PACKET = (
    "02000000000102000000000208004500002800010000400600000a4d00010a4d0002"
    "1f901f910000000100000000500220000000000000000000"
)


@dataclass(frozen=True)
class Objects:
    """The objects by name, in a directory where each has its sha256 as its name."""

    directory: Path
    digests: Mapping[str, str]

    def reference(self, name: str) -> str:
        return f"sha256:{self.digests[name]}"


def build(directory: Path) -> Objects:
    """Compile and copy what the stacks consist of: `edge`, and two builds of each data plane."""
    made = directory / "made"
    made.mkdir()
    _compile(HERE / "edge.bpf.c", made / "edge")
    for name, built in (("sockmap", SOCKMAP), ("xdp_lb", XDP_LB), ("maglev", MAGLEV)):
        shutil.copy(built, made / f"{name}1")
        _mark(made / f"{name}1", made / f"{name}2")
    blobs = directory / "blobs"
    blobs.mkdir()
    digests = {}
    for path in sorted(made.iterdir()):
        digests[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / digests[path.name])
    return Objects(blobs, digests)


def _compile(source: Path, target: Path) -> None:
    machine = subprocess.run(
        ["cc", "-print-multiarch"], capture_output=True, text=True, check=True
    ).stdout.strip()
    flags = ["-g", "-O2", "-target", "bpf", "-Wall", "-Werror", f"-idirafter/usr/include/{machine}"]
    subprocess.run(["clang", *flags, "-c", str(source), "-o", str(target)], check=True)
    subprocess.run(["llvm-strip", "-g", str(target)], check=True)


def _mark(source: Path, target: Path) -> None:
    """The same programs as another file: an object that has changed, and behaves as before."""
    note = target.with_name("note")
    note.write_text("another build")
    add = ["--add-section", f".comment.build={note}"]
    subprocess.run(["llvm-objcopy", *add, str(source), str(target)], check=True)
    note.unlink()


def resource(name: str, **given: Any) -> Resource:
    """One resource with all its options, as the action plugin normalises them."""
    checked = ArgumentSpecValidator(**options.RESOURCES[name]).validate(given)
    assert not checked.error_messages, (name, checked.error_messages)
    return {name: checked.validated_parameters}


def deploy(
    name: str, release: str, resources: Sequence[Resource], drain: Sequence[Resource] = ()
) -> Document:
    """The request that makes this release the active one."""
    manifest = {
        "layout": 1,
        "name": name,
        "release": release,
        "resources": list(resources),
        "drain": list(drain),
        "prune": True,
        "boot": "early",
    }
    return {
        "do": "deploy",
        "manifest": manifest,
        "confirm_timeout": 0,
        "keep": 5,
        "lock_timeout": 30,
        "run": {"controller": "test", "user": "root", "playbook": "test.yml", "time": "now"},
    }


def edge(objects: Objects, name: str, group: Path, version: int, pruned: bool = False) -> Document:
    """XDP, traffic control and a cgroup, with a map's entries, a file and a gate."""
    pins, maps = name, f"{name}/maps"
    entries = {1: 1, 2: 2, 3: 3} if version == 1 else {2: 2, 3: 30, 4: 4}
    resources = [
        resource(
            "bpf_prog",
            object="edge",
            pin_dir=pins,
            pin_maps=maps,
            constants={"version": version},
        ),
        resource(
            "bpf_map_entries",
            map=f"{maps}/policy",
            entries=[{"key": key, "value": value} for key, value in entries.items()],
            purge=True,
        ),
        resource(
            "bpf_test_run",
            prog=f"{pins}/edge_xdp",
            packets=[{"data": PACKET, "expect": {"verdict": "pass"}}],
        ),
        resource(
            "xdp_attach",
            interface=INTERFACE,
            prog=f"{pins}/edge_xdp",
            link=f"{pins}/xdp_link",
            mode="native",  # auto would make do with generic mode when native is refused
        ),
        resource(
            "tc_attach",
            interface=INTERFACE,
            direction="ingress",
            prog=f"{pins}/edge_in",
            link=f"{pins}/tc_link",
        ),
    ]
    if not pruned:
        resources += [
            resource("config_file", path=CONFIG, content=f"version {version}\n", mode="0640"),
            resource("tc_attach", interface=INTERFACE, direction="egress", prog=f"{pins}/edge_out"),
            resource(
                "cgroup_attach",
                cgroup=str(group),
                attach_type="cgroup_inet_egress",
                prog=f"{pins}/edge_group",
                link=f"{pins}/group_link",
            ),
        ]
    resources[0]["bpf_prog"]["object"] = objects.reference("edge")
    return deploy(name, f"v{version}{'p' if pruned else ''}", resources)


def accelerator(
    objects: Objects, name: str, groups: Sequence[Path], version: int, pruned: bool = False
) -> Document:
    """The sockmap accelerator of these cgroups, as its role declares it."""
    maps = f"{name}/maps"
    program = resource("bpf_prog", object="sockmap", pin_dir=name, pin_maps=maps)
    program["bpf_prog"]["object"] = objects.reference(f"sockmap{version}")
    program["bpf_prog"]["map_max_entries"] = {"sockets": 1024, "peers": 1024}
    networks = ["127.0.0.0/8"] if version == 1 else ["127.0.0.0/8", "10.77.0.0/16"]
    resources = [
        program,
        resource(
            "bpf_map_entries",
            map=f"{maps}/policy_ports",
            entries=port_prefixes(["7000-7999"], 1),
            purge=True,
        ),
        resource(
            "bpf_map_entries",
            map=f"{maps}/policy_cidrs",
            entries=cidr_prefixes(networks, 1),
            purge=True,
        ),
        _settings(maps, draining=0),
        resource(
            "sockmap_attach",
            map=f"{maps}/sockets",
            prog=f"{name}/sockmap_redirect",
            link=f"{name}/redirect_link",
        ),
    ]
    for number, group in enumerate(groups[:1] if pruned else groups):
        resources.append(
            resource(
                "cgroup_attach",
                cgroup=str(group),
                prog=f"{name}/sockmap_establish",
                link=f"{name}/cgroups/group{number}",
            )
        )
    return deploy(name, f"v{version}{'p' if pruned else ''}", resources, [_settings(maps, 1)])


def _settings(maps: str, draining: int) -> Resource:
    value = {"draining": draining, "events": 0}
    return resource("bpf_map_entries", map=f"{maps}/settings", entries=[{"key": 0, "value": value}])


def balancer(
    objects: Objects,
    name: str,
    netns: str,
    services: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    version: int,
) -> Document:
    """The load balancer on eth0 of a network namespace, as its role declares it."""
    made = []
    for program, maps in (("xdp_lb", f"{name}/maps"), ("maglev", None)):
        each = resource(
            "bpf_prog", object=program, program=program, pin=f"{name}/{program}", pin_maps=maps
        )
        each["bpf_prog"]["object"] = objects.reference(f"{program}{version}")
        made.append(each)
    made += [
        resource(
            "xdp_lb_services",
            pin_dir=name,
            netns=netns,
            services=list(services),
            sources=dict(sources),
        ),
        resource(
            "xdp_attach",
            interface="eth0",
            netns=netns,
            prog=f"{name}/xdp_lb",
            link=f"{name}/link",
            mode="native",
        ),
    ]
    return deploy(name, f"v{version}", made)
