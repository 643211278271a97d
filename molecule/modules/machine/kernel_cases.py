# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs, maps, entries, packets, the BPF file system, and the limit of locked memory."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from typing import Any

import run
import witness
from quartet import Report

HOME = f"{witness.BPFFS}/ebpf_fleet/modtry"
PACKET = "ffffffffff02 020000000001 0800 45" + "00" * 45
LOW = 65536  # bytes, what root may lock by default on many systems
CAP_SYS_RESOURCE = 24
CAPABILITY_VERSION_3 = 0x20080522


def programs(report: Report, objects: str) -> None:
    """Programs with constants and maps, changed, and gone."""
    given = {
        "object": f"{objects}/test_program.bpf.o",
        "pin_dir": "modtry/p",
        "pin_maps": "modtry/p/maps",
        "remote_src": True,
    }

    def loaded(limit: int) -> object:
        first, things = (
            witness.prog(f"{HOME}/p/first"),
            witness.bpftool("map", "show", "pinned", f"{HOME}/p/maps/things"),
        )
        known = witness.metadata(first)
        right = known.get("owner") == "ebpf.fleet" and known.get("constants") == f"limit={limit}"
        return (right and things["id"] in first["map_ids"]) or (first, things)

    report.quartet(
        "programs and their map",
        "bpf_prog",
        {**given, "constants": {"limit": 1}},
        lambda: loaded(1),
    )
    kept = witness.bpftool("map", "show", "pinned", f"{HOME}/p/maps/things")["id"]
    before = witness.prog(f"{HOME}/p/first")["id"]
    entry = {
        "map": "modtry/p/maps/things",
        "entries": [{"key": 7, "value": 8}, {"key": 9, "value": 10}],
    }
    wanted = [{"key": 7, "value": 8}, {"key": 9, "value": 10}]
    report.quartet("entries", "bpf_map_entries", entry, lambda: _entries() == wanted or _entries())
    report.quartet(
        "other constants", "bpf_prog", {**given, "constants": {"limit": 2}}, lambda: loaded(2)
    )
    report.require(
        "a program that changed is another", witness.prog(f"{HOME}/p/first")["id"] != before
    )
    now = witness.bpftool("map", "show", "pinned", f"{HOME}/p/maps/things")["id"]
    report.require(
        "its map is the one it had, with its entries",
        now == kept and _entries() == wanted,
        (now, kept),
    )
    fewer = {**entry, "entries": entry["entries"][:1], "purge": True}
    report.quartet(
        "entries, and no others",
        "bpf_map_entries",
        fewer,
        lambda: _entries() == wanted[:1] or _entries(),
    )
    _by_hand(report)
    report.quartet(
        "programs away",
        "bpf_prog",
        {**given, "state": "absent", "discard_maps": True},
        lambda: not os.path.exists(f"{HOME}/p"),
    )
    report.features["prog_load"] = "yes, with provenance"
    report.features["map_entries"] = "yes"


def _by_hand(report: Report) -> None:
    """What somebody else has put in the place of a program is put right."""
    os.unlink(f"{HOME}/p/first")
    os.link(f"{HOME}/p/second", f"{HOME}/p/first")
    report.changed_by_hand()
    result = run.module(
        "bpf_prog",
        {
            "object": f"{os.path.dirname(__file__)}/objects/test_program.bpf.o",
            "pin_dir": "modtry/p",
            "pin_maps": "modtry/p/maps",
            "remote_src": True,
            "constants": {"limit": 2},
        },
        check=True,
    )
    report.require("another program at the pin is noticed", result.get("changed"), result)


def _entries() -> list[dict[str, Any]]:
    return sorted(witness.entries(f"{HOME}/p/maps/things"), key=lambda each: int(each["key"]))


def maps(report: Report) -> None:
    """A map without a program."""
    given: dict[str, Any] = {
        "pin": "modtry/own",
        "type": "hash",
        "key_size": 4,
        "value_size": 8,
        "max_entries": 8,
    }
    pin = f"{HOME}/own"

    def there() -> object:
        shown = witness.bpftool("map", "show", "pinned", pin)
        return (shown["type"], shown["bytes_key"], shown["bytes_value"], shown["max_entries"]) == (
            "hash",
            4,
            8,
            8,
        ) or shown

    report.quartet("a map", "bpf_map_pin", given, there)
    entry = {
        "map": "modtry/own",
        "entries": [{"key": 1, "value": 258}],
        "key_format": ["u32"],
        "value_format": ["be64"],
    }
    dumped = [{"key": ["0x01", "0x00", "0x00", "0x00"], "value": ["0x00"] * 6 + ["0x01", "0x02"]}]

    def entered() -> object:
        shown = [
            {name: each[name] for name in ("key", "value")}
            for each in witness.bpftool("map", "dump", "pinned", pin)
        ]
        return shown == dumped or shown

    report.quartet("an entry of it, by formats", "bpf_map_entries", entry, entered)
    report.quartet("the entry away", "bpf_map_entries", {**entry, "state": "absent"})
    report.quartet(
        "the map away",
        "bpf_map_pin",
        {"pin": "modtry/own", "state": "absent", "discard_data": True},
        lambda: not os.path.exists(pin),
    )
    report.features["map_entries"] = "yes"


def packets(report: Report, objects: str) -> None:
    """Programs run on packets."""
    known = ["verdict_xdp", "verdict_grow", "verdict_tc", "verdict_cgroup", "verdict_sockops"]
    given = {
        "object": f"{objects}/test_verdicts.bpf.o",
        "pin_dir": "modtry/v",
        "programs": known,
        "remote_src": True,
    }
    report.set_up("programs of many types", "bpf_prog", given)
    for program, verdict in (
        ("verdict_xdp", "pass"),
        ("verdict_grow", "tx"),
        ("verdict_tc", "pass"),
        ("verdict_cgroup", "pass"),
    ):
        asked: dict[str, Any] = {
            "prog": f"modtry/v/{program}",
            "packets": [{"data": PACKET, "expect": {"verdict": verdict}}],
            "repeat": 10,
        }
        result = run.module("bpf_test_run", asked)
        report.require(
            f"{program} on a packet", not result.get("failed") and not result.get("changed"), result
        )
    wrong = {
        "prog": "modtry/v/verdict_xdp",
        "packets": [{"data": PACKET, "expect": {"verdict": "drop"}}],
    }
    report.refused(
        "a verdict that was not expected", "bpf_test_run", wrong, "expected verdict drop, got pass"
    )
    never = {"prog": "modtry/v/verdict_sockops", "packets": [{"data": PACKET}]}
    report.refused("a type that runs on no packets", "bpf_test_run", never, "sock_ops")
    frags = {
        "object": f"{objects}/test_verdicts.bpf.o",
        "pin_dir": "modtry/f",
        "programs": ["verdict_frags"],
        "remote_src": True,
    }
    if witness.kernel() < (5, 18):
        report.refused("packets in several buffers", "bpf_prog", frags, "Linux 5.18 has them")
    else:
        report.quartet("packets in several buffers", "bpf_prog", frags)
        report.set_up("they are gone", "bpf_prog", {**frags, "state": "absent"})
    report.set_up("programs of many types away", "bpf_prog", {**given, "state": "absent"})
    report.features["test_run"] = "XDP, tc, cgroup_skb"


def bpffs(report: Report) -> None:
    """A BPF file system, mounted once."""
    path = "/run/modtry-bpffs"
    os.makedirs(path, exist_ok=True)
    report.quartet(
        "a BPF file system",
        "bpffs",
        {"path": path, "mode": "0711"},
        lambda: witness.mounted(path) == ["bpf"] or witness.mounted(path),
    )
    report.quartet(
        "the BPF file system away",
        "bpffs",
        {"path": path, "state": "absent"},
        lambda: not witness.mounted(path),
    )
    os.rmdir(path)


def memlock(report: Report, objects: str) -> None:
    """A limit of locked memory that is too low for the maps, for what it matters before 5.11."""
    given = {
        "object": f"{objects}/test_program.bpf.o",
        "pin_dir": "modtry/m",
        "pin_maps": "modtry/m/maps",
        "remote_src": True,
        "map_max_entries": {"things": 100000},
    }
    raised = run.module("bpf_prog", given, before=_low)
    report.changed_by_hand()
    report.require("a low limit is raised", raised.get("changed"), raised)
    run.module("bpf_prog", {**given, "state": "absent", "discard_maps": True})
    helpless = run.module("bpf_prog", given, before=_low_for_good)
    if witness.kernel() < (5, 11):
        said = str(helpless.get("msg"))
        report.require(
            "a limit that cannot be raised is named",
            helpless.get("failed") and "RLIMIT_MEMLOCK" in said,
            helpless,
        )
        report.require(
            "nothing is left of it",
            not os.path.exists(f"{HOME}/m"),
            os.path.exists(f"{HOME}/m") and os.listdir(f"{HOME}/m"),
        )
        report.features["memlock"] = "raised by the modules"
    else:
        report.require("the limit does not matter", helpless.get("changed"), helpless)
        report.features["memlock"] = "not held against BPF"
    run.module("bpf_prog", {**given, "state": "absent", "discard_maps": True})


def _low() -> None:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (LOW, LOW))


def _low_for_good() -> None:
    """As root without CAP_SYS_RESOURCE (struct __user_cap_header_struct and _data_struct)."""
    _low()
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    libc.capget(header, data)
    words = list(struct.unpack("=6I", data.raw[:24]))
    for index in range(3):  # effective, permitted, inheritable
        words[index] &= ~(1 << CAP_SYS_RESOURCE)
    packed = ctypes.create_string_buffer(struct.pack("=6I", *words))
    if libc.capset(header, packed):
        raise OSError(ctypes.get_errno(), "capset")


def refusal(report: Report, objects: str) -> None:
    """A libbpf that is too old: what needs it says so and does nothing."""
    given = {"object": f"{objects}/test_program.bpf.o", "pin_dir": "modtry/p", "remote_src": True}
    report.refused(
        "programs without a libbpf for them", "bpf_prog", given, "libbpf", "version 0.6 or later"
    )
    report.require("nothing is pinned then", not os.path.exists(f"{HOME}/p"))
    report.features["prog_load"] = "refused: libbpf before 0.6"
