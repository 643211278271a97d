# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole stacks of things.bpf.c, converged in this process as a release is: what is asked for, and what came of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import snapshot
from harness_stacks import resource
from snapshot import Snapshot

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import manifest, transaction
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.manifest import Manifest
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.transaction import Result

NAME = f"things-{os.getpid()}"  # programs are the machine's, and known by the name of their stack
HOME = Path("/sys/fs/bpf/ebpf_fleet")
PROGRAMS = ["thing_xdp", "thing_tc", "thing_out", "thing_ops", "thing_msg"]
Resource = tuple[str, dict[str, Any]]
PACKET = "ff" * 12 + "0800" + "45" + "00" * 45


@dataclass
class Host:
    """What the stacks are made of, and where they are converged."""

    objects: dict[int, Path]
    group: Path
    netns: str
    directory: Path
    kept: list[Manifest] = field(default_factory=list)

    def programs(self, version: int = 1, **more: Any) -> Resource:
        given = {"pin_dir": NAME, "programs": PROGRAMS, "pin_maps": f"{NAME}/maps"}
        return "bpf_prog", {"object": f"sha256:{version:064x}", **given, **more}

    def numbers(self, found: dict[int, int], **more: Any) -> Resource:
        entries = [{"key": key, "value": value} for key, value in found.items()]
        return "bpf_map_entries", {
            "map": f"{NAME}/maps/thing_numbers",
            "entries": entries,
            **more,
        }

    def file(self, content: str) -> Resource:
        return "config_file", {"path": f"{self.directory}/thing.conf", "content": content}

    def gate(self, verdict: str = "pass") -> Resource:
        packets = [{"data": PACKET, "expect": {"verdict": verdict}}]
        return "bpf_test_run", {"prog": f"{NAME}/thing_xdp", "packets": packets}

    def sockmap(self, **more: Any) -> Resource:
        given = {"map": f"{NAME}/maps/thing_sockets", "prog": f"{NAME}/thing_msg"}
        return "sockmap_attach", {**given, "link": f"{NAME}/msg_link", **more}

    def tc(self, **more: Any) -> Resource:
        given = {"interface": "v0", "netns": self.netns, "direction": "ingress"}
        return "tc_attach", {**given, "prog": f"{NAME}/thing_tc", "link": f"{NAME}/tc_link", **more}

    def xdp(self, **more: Any) -> Resource:
        given = {"interface": "v0", "netns": self.netns, "prog": f"{NAME}/thing_xdp"}
        return "xdp_attach", {**given, "link": f"{NAME}/xdp_link", **more}

    def cgroup(self, **more: Any) -> Resource:
        given = {"cgroup": str(self.group), "prog": f"{NAME}/thing_out"}
        given["attach_type"] = "cgroup_inet_egress"
        return "cgroup_attach", {**given, "link": f"{NAME}/out_link", **more}

    def all_kinds(self, version: int = 1) -> list[Resource]:
        """A resource of each kind, declared in no useful order."""
        return [
            self.cgroup(),
            self.xdp(),
            self.tc(),
            self.sockmap(),
            self.gate(),
            self.file(f"version {version}\n"),
            self.numbers({1: version, version + 1: 7}),
            (
                "bpf_map_pin",
                {
                    "pin": f"{NAME}/own",
                    "type": "hash",
                    "key_size": 4,
                    "value_size": 4,
                    "max_entries": 8,
                },
            ),
            self.programs(version),
        ]

    def manifest(
        self,
        declared: Sequence[Resource],
        release: str = "r1",
        drain: Sequence[Resource] = (),
        prune: bool = True,
    ) -> Manifest:
        return manifest.parse(
            {
                "layout": 1,
                "name": NAME,
                "release": release,
                "resources": [resource_of(each) for each in declared],
                "drain": [resource_of(each) for each in drain],
                "prune": prune,
            }
        )

    def resolve(self, sha: str) -> str:
        return str(self.objects[int(sha, 16)])

    def converge(
        self, wanted: Manifest, previous: Sequence[Manifest] | None = None, **more: Any
    ) -> Result:
        """Converge; the manifest is the previous one of the next time."""
        before = self.kept if previous is None else previous
        result = transaction.converge(wanted, self.resolve, tuple(before), **more)
        if not more.get("check"):
            self.kept = [wanted]
        return result

    def proven(self, wanted: Manifest, previous: Sequence[Manifest] | None = None) -> Result:
        """Check mode leaves everything alone and tells what the run then does; the next does nothing."""
        before = self.snapshot()
        told = self.converge(wanted, previous, check=True)
        left = self.settled(before)
        assert not left, left
        done = self.converge(wanted, previous)
        assert (done.changed, done.actions) == (told.changed, told.actions)
        assert [*done.diff["after"]] == [*told.diff["after"]]
        again = self.converge(wanted)
        assert (again.changed, again.actions) == (False, ())
        return done

    def refused(self, wanted: Manifest, why: str, **more: Any) -> Failure:
        """It fails for this reason, and everything is as it was."""
        before = self.snapshot()
        with pytest.raises(Failure, match=why) as caught:
            self.converge(wanted, **more)
        left = self.settled(before)
        assert not left, left
        assert caught.value.details.get("left", []) == []
        return caught.value

    def snapshot(self) -> Snapshot:
        """Everything there is, once the kernel has freed what nothing refers to any more."""
        found = self._take()
        while snapshot.differences(found, now := self._take()):
            found = now
        return found

    def settled(self, before: Snapshot) -> list[str]:
        return snapshot.settled(before, self._take)

    def _take(self) -> Snapshot:
        time.sleep(0.03)
        found = _patiently(self)
        programs = {
            number: each
            for number, each in found["programs"].items()
            if each.get("metadata", {}).get("stack", "").startswith(NAME) or each.get("pinned")
        }
        used = {number for each in programs.values() for number in each.get("map_ids", ())}
        # bpftool 7.1 shows another map's btf_id where a map has none.
        maps = {
            number: {key: value for key, value in each.items() if key != "btf_id"}
            for number, each in found["maps"].items()
            if number in used or each.get("pinned")
        }
        links = {
            number: each for number, each in found["links"].items() if each["prog_id"] in programs
        }
        return {**found, "programs": programs, "maps": maps, "links": links}


def _patiently(host: Host) -> Snapshot:
    """bpftool gives up when an object that it was about to show is gone."""
    for _attempt in range(10):
        with contextlib.suppress(subprocess.CalledProcessError):
            return snapshot.take(host.group, host.netns, [host.directory])
    raise AssertionError("bpftool cannot list what there is")


def resource_of(each: Resource) -> dict[str, Any]:
    """The resource with all its options, as a manifest holds it."""
    name, given = each
    return resource(name, **given)


def pinned(kind: str, name: str) -> dict[str, Any]:
    """What bpftool says of the pin below the stack's directory."""
    found = snapshot.bpftool(kind, "show", "pinned", f"{HOME}/{NAME}/{name}")
    assert isinstance(found, dict)
    return found
