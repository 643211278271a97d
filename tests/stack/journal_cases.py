# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done under a journal, one resource or hook a case: a beginning, then the steps that change it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snapshot
from resources import Resource

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import xdp_dispatcher

STACK = f"journal-{os.getpid()}"
PROGRAMS = ["thing_xdp", "thing_tc", "thing_out", "thing_ops", "thing_msg"]


@dataclass(frozen=True)
class Host:
    """What the cases are made of."""

    objects: dict[int, Path]
    group: Path
    netns: str
    directory: Path

    def programs(self, version: int = 1, **more: Any) -> Resource:
        given = {
            "object": str(self.objects[version]),
            "pin_dir": "t",
            "programs": PROGRAMS,
            "pin_maps": "t/maps",
            "stack": STACK,
        }
        return "bpf_prog", {**given, **more}

    def cgroup(self, **more: Any) -> Resource:
        return "cgroup_attach", {
            "cgroup": str(self.group),
            "prog": "t/thing_out",
            "attach_type": "cgroup_inet_egress",
            **more,
        }

    def xdp(self, **more: Any) -> Resource:
        return "xdp_attach", {"interface": "v0", "netns": self.netns, "prog": "t/thing_xdp", **more}

    def tc(self, **more: Any) -> Resource:
        given = {
            "interface": "v0",
            "netns": self.netns,
            "direction": "ingress",
            "prog": "t/thing_tc",
        }
        return "tc_attach", {**given, **more}

    def sockmap(self, **more: Any) -> Resource:
        return "sockmap_attach", {"map": "t/maps/thing_sockets", "prog": "t/thing_msg", **more}

    def numbers(self, found: dict[int, int], **more: Any) -> Resource:
        entries = [{"key": key, "value": value} for key, value in found.items()]
        return "bpf_map_entries", {"map": "t/maps/thing_numbers", "entries": entries, **more}

    def trie(self, found: dict[str, int], **more: Any) -> Resource:
        entries = [{"key": _prefix(key), "value": value} for key, value in found.items()]
        given = {
            "map": "trie",
            "entries": entries,
            "key_format": ["u32", "ipv4"],
            "value_format": ["u32"],
        }
        return "bpf_map_entries", {**given, **more}

    def file(self, **more: Any) -> Resource:
        return "config_file", {"path": f"{self.directory}/ebpf-fleet/a/b.json", **more}

    def bpffs(self, **more: Any) -> Resource:
        return "bpffs", {"path": str(self.directory / "mounted"), **more}

    def snapshot(self) -> snapshot.Snapshot:
        return snapshot.take(self.group, self.netns, [self.directory], stack=STACK)


def _prefix(text: str) -> list[Any]:
    address, _slash, length = text.partition("/")
    return [int(length), address]


TRIE: Resource = (
    "bpf_map_pin",
    {
        "pin": "trie",
        "type": "lpm_trie",
        "key_size": 8,
        "value_size": 4,
        "max_entries": 9,
        "flags": ["no_prealloc"],
    },
)
EXT = {"type": "ext", "programs": ["thing_xdp"]}

Steps = Callable[[Host], list[Resource]]

# What is there before, and what is done under the journal.
CASES: dict[str, tuple[Steps, Steps]] = {
    "programs loaded": (lambda _h: [], lambda h: [h.programs()]),
    "programs upgraded": (lambda h: [h.programs()], lambda h: [h.programs(2)]),
    "programs removed": (lambda h: [h.programs()], lambda h: [h.programs(state="absent")]),
    "programs and maps removed": (
        lambda h: [h.programs(), h.numbers({1: 2})],
        lambda h: [h.programs(state="absent", discard_maps=True)],
    ),
    "map recreated": (
        lambda h: [h.programs(), h.numbers({1: 2, 3: 4})],
        lambda h: [
            h.programs(map_max_entries={"thing_numbers": 8}, on_incompatible_map="recreate"),
            h.numbers({5: 6}),
        ],
    ),
    "map created and filled": (lambda _h: [], lambda h: [TRIE, h.trie({"10.0.0.0/8": 1})]),
    "map's mode": (lambda _h: [TRIE], lambda _h: [(TRIE[0], {**TRIE[1], "mode": "0640"})]),
    "map unpinned": (
        lambda h: [(TRIE[0], {**TRIE[1], "mode": "0640"}), h.trie({"10.0.0.0/8": 1})],
        lambda _h: [("bpf_map_pin", {"pin": "trie", "state": "absent", "discard_data": True})],
    ),
    "entries": (
        lambda h: [h.programs(), h.numbers({1: 1, 2: 2, 3: 3})],
        lambda h: [
            h.numbers({2: 20, 4: 40}, purge=True),
            h.numbers({4: 0}, state="absent"),
            h.numbers({1: 5}),
        ],
    ),
    "entries of a trie": (
        lambda h: [TRIE, h.trie({"10.0.0.0/8": 1, "10.1.0.0/16": 2})],
        lambda h: [
            h.trie({"10.2.0.0/16": 3, "10.1.0.0/16": 4}),
            h.trie({"10.0.0.0/8": 0}, state="absent"),
        ],
    ),
    "cgroup link": (lambda h: [h.programs()], lambda h: [h.cgroup(link="t/link")]),
    "cgroup link upgraded": (
        lambda h: [h.programs(), h.cgroup(link="t/link")],
        lambda h: [h.programs(2), h.cgroup(link="t/link")],
    ),
    "cgroup link removed": (
        lambda h: [h.programs(), h.cgroup(link="t/link")],
        lambda h: [h.cgroup(link="t/link", state="absent")],
    ),
    "cgroup link under another name": (
        lambda h: [h.programs(), h.cgroup(link="t/link")],
        lambda h: [h.cgroup(link="t/other"), h.cgroup(link="t/link", state="absent")],
    ),
    "cgroup created": (
        lambda h: [h.programs()],
        lambda h: [h.cgroup(cgroup=f"{h.group}/a/b", create_cgroup=True, mode="multi")],
    ),
    "cgroup direct": (lambda h: [h.programs()], lambda h: [h.cgroup(mode="multi")]),
    "cgroup direct upgraded": (
        lambda h: [h.programs(), h.cgroup(mode="multi")],
        lambda h: [h.programs(2), h.cgroup(mode="multi")],
    ),
    "cgroup direct removed": (
        lambda h: [h.programs(), h.cgroup(mode="multi")],
        lambda h: [h.cgroup(mode="multi", state="absent")],
    ),
    "cgroup override": (
        lambda h: [h.programs(), h.cgroup(mode="override")],
        lambda h: [h.programs(2), h.cgroup(mode="override")],
    ),
    "cgroup exclusive removed": (
        lambda h: [h.programs(), h.cgroup(mode="exclusive")],
        lambda h: [h.cgroup(mode="exclusive", state="absent")],
    ),
    "cgroup from direct to link": (
        lambda h: [h.programs(), h.cgroup(mode="multi")],
        lambda h: [h.cgroup(link="t/link")],
    ),
    "cgroup from link to direct": (
        lambda h: [h.programs(), h.cgroup(link="t/link")],
        lambda h: [h.programs(2), h.cgroup(mode="multi", link="t/link")],
    ),
    "sockmap direct": (lambda h: [h.programs()], lambda h: [h.sockmap()]),
    "sockmap direct upgraded": (
        lambda h: [h.programs(), h.sockmap()],
        lambda h: [h.programs(2), h.sockmap()],
    ),
    "sockmap direct removed": (
        lambda h: [h.programs(), h.sockmap()],
        lambda h: [h.sockmap(state="absent", drain="force")],
    ),
    "sockmap link": (lambda h: [h.programs()], lambda h: [h.sockmap(link="t/link")]),
    "sockmap link upgraded": (
        lambda h: [h.programs(), h.sockmap(link="t/link")],
        lambda h: [h.programs(2), h.sockmap(link="t/link")],
    ),
    "sockmap link removed": (
        lambda h: [h.programs(), h.sockmap(link="t/link")],
        lambda h: [h.sockmap(link="t/link", state="absent")],
    ),
    "xdp link": (lambda h: [h.programs()], lambda h: [h.xdp(link="t/link")]),
    "xdp link upgraded": (
        lambda h: [h.programs(), h.xdp(link="t/link")],
        lambda h: [h.programs(2), h.xdp(link="t/link")],
    ),
    "xdp link removed": (
        lambda h: [h.programs(), h.xdp(link="t/link")],
        lambda h: [h.xdp(link="t/link", state="absent")],
    ),
    "xdp link under another name": (
        lambda h: [h.programs(), h.xdp(link="t/link")],
        lambda h: [h.xdp(link="t/other"), h.xdp(link="t/link", state="absent")],
    ),
    "xdp link removed and declared again": (
        lambda h: [h.programs(), h.xdp(link="t/link")],
        lambda h: [h.xdp(link="t/link", state="absent"), h.programs(2), h.xdp(link="t/other")],
    ),
    "xdp direct": (lambda h: [h.programs()], lambda h: [h.xdp()]),
    "xdp direct upgraded": (
        lambda h: [h.programs(), h.xdp(mode="generic")],
        lambda h: [h.programs(2), h.xdp(mode="generic")],
    ),
    "xdp direct moved": (
        lambda h: [h.programs(), h.xdp(mode="generic")],
        lambda h: [h.programs(2), h.xdp(mode="native")],
    ),
    "xdp direct removed": (lambda h: [h.programs(), h.xdp()], lambda h: [h.xdp(state="absent")]),
    "tcx": (lambda h: [h.programs()], lambda h: [h.tc(link="t/link")]),
    "tcx upgraded": (
        lambda h: [h.programs(), h.tc(link="t/link")],
        lambda h: [h.programs(2), h.tc(link="t/link")],
    ),
    "tcx removed": (
        lambda h: [h.programs(), h.tc(link="t/link")],
        lambda h: [h.tc(link="t/link", state="absent")],
    ),
    "clsact": (lambda h: [h.programs()], lambda h: [h.tc(), h.tc(direction="egress")]),
    "clsact upgraded": (
        lambda h: [h.programs(), h.tc()],
        lambda h: [h.programs(2), h.tc(), h.tc(handle=7)],
    ),
    "clsact removed": (
        lambda h: [h.programs(), h.tc(), h.tc(direction="egress")],
        lambda h: [h.tc(state="absent"), h.tc(direction="egress", state="absent")],
    ),
    "from clsact to tcx": (
        lambda h: [h.programs(), h.tc()],
        lambda h: [h.programs(2), h.tc(link="t/link")],
    ),
    "from tcx to clsact": (
        lambda h: [h.programs(), h.tc(link="t/link")],
        lambda h: [h.tc(link="t/link", state="absent"), h.tc()],
    ),
    "file": (lambda _h: [], lambda h: [h.file(content="{}")]),
    "file changed": (
        lambda h: [h.file(content="{}", mode="0600")],
        lambda h: [h.file(content="[]"), h.file(content="[]", mode="0640")],
    ),
    "file removed": (
        lambda h: [h.file(content="{}", mode="0600")],
        lambda h: [h.file(state="absent")],
    ),
    "bpffs": (lambda _h: [], lambda h: [h.bpffs()]),
    "bpffs's mode": (lambda h: [h.bpffs()], lambda h: [h.bpffs(mode="0711")]),
    "bpffs removed": (lambda h: [h.bpffs(mode="0711")], lambda h: [h.bpffs(state="absent")]),
}

# Some hardened kernels load no components, even for root.
if xdp_dispatcher.components_load():
    CASES |= {
        "xdp component": (lambda h: [h.programs(**EXT)], lambda h: [h.xdp()]),
        "xdp component upgraded": (
            lambda h: [h.programs(**EXT), h.xdp()],
            lambda h: [h.programs(2, **EXT), h.xdp(priority=7)],
        ),
        "xdp component removed": (
            lambda h: [h.programs(**EXT), h.xdp()],
            lambda h: [h.xdp(state="absent"), h.programs(state="absent", **EXT)],
        ),
    }

# A detached link never attaches again: where the way leads through a gap, a new one comes back.
GAPS: dict[str, tuple[Steps, Steps]] = {
    "xdp link moved": (
        lambda h: [h.programs(), h.xdp(mode="generic", link="t/link")],
        lambda h: [h.programs(2), h.xdp(mode="native", link="t/link")],
    ),
}
