# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host holds, seen without the engine: pins and what they name, hooks, entries, files.

The kernel's own words: /proc's fdinfo of each pinned object, bpftool, ip(8), tc(8) and directory listings.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import stat
import struct
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_world import BPFFS, OBJ_GET, OWN_DIRECTORIES, World, bpf, bpftool

# What the data planes write by themselves while traffic runs.
LIVE_MAPS = ("seen", "counters", "sockets", "peers", "directions", "events")
# What the engine writes of times and tokens, which no two runs have in common.
TIMES = re.compile(
    r'"(created|activated|time|token|boot|due|confirm_by)": ?(\[[^\]]*\]|"[^"]*"|[0-9.]+|null)'
)
# Of fdinfo: what belongs to the descriptor, or changes by itself.
_IDS = re.compile(r"\b(prog_id|map_id|link_id)=(\d+)")
_OWN_ID = re.compile(r"^(program|map|link) id=\d+")
_UNIMPORTANT = (
    *("pos", "flags", "mnt_id", "ino", "memlock"),
    *("run_time_ns", "run_cnt", "recursion_misses"),
)
# Marks of a program that are made of the ids of its maps, and which release happened to load it.
_MARKS = re.compile(r" config=\w+| release=\S+| maps=(?:\w+=\d+ ?)+")


@dataclass(frozen=True)
class State:
    """Lines of text by what they are about: two states are the same when these are."""

    facts: Mapping[str, str]

    def differences(self, other: State) -> list[str]:
        """What is here, and not or otherwise there."""
        return [
            f"{name}: {self.facts.get(name, '(nothing)')}  BUT  {other.facts.get(name, '(nothing)')}"
            for name in sorted({*self.facts, *other.facts})
            if self.facts.get(name) != other.facts.get(name)
        ]

    @property
    def normal(self) -> State:
        """With each id replaced by the first pin that has it: what two runs have in common."""
        names: dict[str, str] = {}
        for name, text in sorted(self.facts.items()):
            found = re.match(r"(program|map|link) id=(\d+)", text)
            if found and name.startswith("pin "):
                names.setdefault(f"{found[1]} {found[2]}", name)

        def replaced(found: re.Match[str]) -> str:
            kind, number = found[1], found[2]
            word = {"prog_id": "program", "map_id": "map", "link_id": "link"}.get(kind, kind)
            return f"{kind}=<{names.get(f'{word} {number}', 'unpinned')}>"

        return State(
            {name: _IDS.sub(replaced, _comparable(text)) for name, text in self.facts.items()}
        )


def _comparable(text: str) -> str:
    return TIMES.sub(r'"\1": *', _MARKS.sub("", _OWN_ID.sub(r"\1", text)))


def take(world: World) -> State:
    """Everything that is there."""
    facts: dict[str, str] = {}
    marks = {str(prog["id"]): _marks(prog) for prog in bpftool("prog", "show")}
    for path in _walk(BPFFS):
        if path.is_dir():
            facts[f"directory {path}"] = oct(path.stat().st_mode)
        else:
            facts[f"pin {path}"] = _pinned(path, marks)
            if facts[f"pin {path}"].startswith("map") and path.name not in LIVE_MAPS:
                facts[f"entries {path}"] = _entries(path)
    for base in OWN_DIRECTORIES:
        facts.update({f"file {path}": _file(path) for path in _walk(Path(base))})
    facts.update(_hooks(world))
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    facts["bpffs"] = " ".join(line.split()[1] for line in mounts if line.split()[2] == "bpf")
    return State(facts)


def _marks(program: Mapping[str, Any]) -> dict[str, str]:
    """Provenance, name and whether the program has its types."""
    own = {"name": program.get("name", ""), "types": str("btf_id" in program)}
    return {**program.get("metadata", {}), **own}


def _walk(base: Path) -> Iterable[Path]:
    for directory, names, files in os.walk(base):
        if Path(directory) == Path("/run") and "netns" in names:
            names.remove("netns")
        for name in (*names, *files):
            if name not in ("maps.debug", "progs.debug", "ebpf-fleet.lock"):
                yield Path(directory, name)


def _pinned(path: Path, marks: Mapping[str, Mapping[str, str]]) -> str:
    """The object of a pin. `marks` are the provenance of programs by id."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    descriptor = bpf(OBJ_GET, struct.pack("Q", ctypes.addressof(name)))
    try:
        target = os.readlink(f"/proc/self/fd/{descriptor}")
        lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    finally:
        os.close(descriptor)
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key: value.strip() for key, value in words.items() if key not in _UNIMPORTANT}
    kind = {"bpf-prog": "program", "bpf-map": "map"}.get(target.split(":")[1].strip("[]"), "link")
    own = {"program": "prog_id", "map": "map_id", "link": "link_id"}[kind]
    identity = facts.pop(own)
    if kind == "program":
        facts.update(marks.get(identity, {}))
    rest = " ".join(f"{key}={value}" for key, value in sorted(facts.items()))
    return f"{kind} id={identity} {rest} mode={path.stat().st_mode:o}"


def _entries(path: Path) -> str:
    dumped = bpftool("map", "dump", "pinned", path)
    # The bytes: a map has types unless libbpf was refused once and made it without.
    plain = ({**entry, "formatted": None} for entry in dumped)
    texts = (json.dumps(entry, sort_keys=True) for entry in plain)
    return " ".join(sorted(texts))


def _file(path: Path) -> str:
    found = path.lstat()
    mode = f"{found.st_mode:o}"
    if stat.S_ISLNK(found.st_mode):
        return f"{mode} -> {os.readlink(path)}"
    if not stat.S_ISREG(found.st_mode):
        return mode
    content = path.read_bytes()
    if content.isascii():
        return f"{mode} {content.decode()}"
    return f"{mode} {hashlib.sha256(content).hexdigest()}"


def _hooks(world: World) -> dict[str, str]:
    """What runs at the hooks, by program ids."""
    shown = _json("ip", "-d", "-j", "link", "show", "dev", "veth")[0]
    facts = {"hook xdp": f"prog_id={shown.get('xdp', {}).get('prog', {}).get('id', 0)}"}
    facts["hook xdp mode"] = str(shown.get("xdp", {}).get("mode"))
    qdiscs = sorted(qdisc["kind"] for qdisc in _json("tc", "-j", "qdisc", "show", "dev", "veth"))
    facts["qdiscs"] = " ".join(qdiscs)
    if "clsact" in qdiscs:
        for direction in ("ingress", "egress"):
            filters = _json("tc", "-j", "filter", "show", "dev", "veth", direction)
            facts[f"hook tc {direction}"] = " ".join(map(_filter, filters))
    for number, group in enumerate(world.groups):
        # As text: its JSON is broken where a hook of the device type is empty (bpftool 7.1).
        listed = subprocess.run(
            ["bpftool", "cgroup", "show", str(group)], capture_output=True, text=True, check=True
        ).stdout
        for line in listed.splitlines()[1:]:
            identity, attach_type, *rest = line.split()
            name = f"hook cgroup {number} {attach_type} {' '.join(rest)}"
            facts[name] = f"{facts.get(name, '')} prog_id={identity}"
    return facts


def _filter(each: Mapping[str, Any]) -> str:
    options = each.get("options", {})
    place = f"pref {each.get('pref')} handle {options.get('handle')}"
    return f"{place} {options.get('bpf_name')} prog_id={options.get('prog', {}).get('id', 0)}"


def _json(*words: str) -> Any:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")
