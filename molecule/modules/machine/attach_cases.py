# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs at cgroups and socket maps: by a link, and directly where there are none."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import run
import traffic
import witness
from quartet import Report

HOME = f"{witness.BPFFS}/ebpf_fleet/modtry"
EGRESS = "cgroup_inet_egress"


def cgroups(report: Report, objects: str) -> None:
    """Every mode, upgraded, and gone again."""
    given = {"object": f"{objects}/test_cgroup.bpf.o", "pin_dir": "modtry/c", "remote_src": True}
    for version in (1, 2):
        report.set_up(
            f"cgroup programs, version {version}",
            "bpf_prog",
            {**given, "constants": {"version": version}},
        )
        _linked(report, version)
        for mode in ("multi", "override", "exclusive")[: None if version == 1 else 1]:
            _direct(report, mode, version)
    absent: dict[str, Any] = {"state": "absent", "prog": "modtry/c/filter", "attach_type": EGRESS}
    report.quartet(
        "cgroup link away",
        "cgroup_attach",
        {**absent, "cgroup": "modlink", "link": "modtry/c_link"},
        lambda: not _at("modlink") or _at("modlink"),
    )
    for mode in ("multi", "override", "exclusive"):
        report.quartet(
            f"cgroup {mode} away",
            "cgroup_attach",
            {**absent, "cgroup": f"mod{mode}", "mode": mode},
            partial(_nothing_at, f"mod{mode}"),
        )
    report.set_up("cgroup programs away", "bpf_prog", {**given, "state": "absent"})
    for name in ("link", "multi", "override", "exclusive"):
        os.rmdir(f"{witness.cgroup2()}/mod{name}")
    report.changed_by_hand()
    report.features["cgroup_attach"] = "link, or directly"


def _linked(report: Report, version: int) -> None:
    pin = f"{HOME}/c_link"
    before = witness.link(pin)["id"] if os.path.exists(pin) else 0
    options = {
        "cgroup": "modlink",
        "create_cgroup": True,
        "prog": "modtry/c/filter",
        "attach_type": EGRESS,
        "link": "modtry/c_link",
    }

    def there() -> object:
        held, wanted = witness.link(pin), witness.prog(f"{HOME}/c/filter")["id"]
        at = _at("modlink")
        right = held["prog_id"] == wanted and at == [wanted] and before in (0, held["id"])
        return right or (held, wanted, at, before)

    report.quartet(f"cgroup link, version {version}", "cgroup_attach", options, there)
    ran = _ran("modlink")
    report.require(f"the linked program runs, version {version}", ran, ran)


def _direct(report: Report, mode: str, version: int) -> None:
    options = {
        "cgroup": f"mod{mode}",
        "create_cgroup": True,
        "prog": "modtry/c/filter",
        "attach_type": EGRESS,
        "mode": mode,
    }

    def there() -> object:
        wanted, at = witness.prog(f"{HOME}/c/filter")["id"], _at(f"mod{mode}")
        return at == [wanted] or (at, wanted)

    report.quartet(f"cgroup {mode}, version {version}", "cgroup_attach", options, there)


def _nothing_at(name: str) -> object:
    return not _at(name) or _at(name)


def _at(name: str) -> list[int]:
    return witness.cgroup(f"{witness.cgroup2()}/{name}", EGRESS)


def _ran(name: str) -> bool:
    with traffic.counted():
        return traffic.rises(
            f"{HOME}/c/filter", lambda: traffic.talk(f"{witness.cgroup2()}/{name}")
        )


def hierarchy(report: Report, expected: str) -> None:
    """Where cgroup2 is: alone, or beside version 1; and that the modules say the same."""
    found = "hybrid" if witness.mounted("/sys/fs/cgroup/unified") == ["cgroup2"] else "unified"
    report.require("cgroups are mounted as the matrix says", found == expected, (found, expected))
    told = run.module("bpf_info", {"gather": []})
    report.require(
        "the modules find cgroup2", told.get("host", {}).get("cgroup2") == witness.cgroup2(), told
    )
    report.features["cgroup_hybrid"] = "beside version 1" if found == "hybrid" else "cgroup2 alone"


def sockmaps(report: Report, objects: str) -> None:
    """A message program at a socket map, by a link where there are, and directly."""
    given = {
        "object": f"{objects}/test_sockmap.bpf.o",
        "pin_dir": "modtry/s",
        "pin_maps": "modtry/s/maps",
        "remote_src": True,
    }
    filling = {
        "cgroup": "modsockets",
        "create_cgroup": True,
        "prog": "modtry/s/insert",
        "link": "modtry/s_insert",
    }
    base: dict[str, Any] = {
        "map": "modtry/s/maps/sockets",
        "prog": "modtry/s/count",
        "drain": "force",
    }
    has_links = witness.kernel() >= (6, 10)
    linked = {**base, "link": "modtry/s_link"}
    ways: dict[str, dict[str, Any]] = {"directly": base}
    if has_links:
        ways["by a link"] = linked
    else:
        ways["by a link if there were any"] = {**linked, "link_fallback": True}
    for way, options in ways.items():
        for version in (1, 2):
            report.set_up(
                f"socket programs, version {version}",
                "bpf_prog",
                {**given, "constants": {"version": version}},
            )
            report.set_up(f"sockets are in the map, version {version}", "cgroup_attach", filling)
            report.quartet(
                f"message program {way}, version {version}",
                "sockmap_attach",
                options,
                partial(_counts, version),
            )
        if has_links and "link" in options:
            held, wanted = (
                witness.link(f"{HOME}/s_link")["prog_id"],
                witness.prog(f"{HOME}/s/count")["id"],
            )
            report.require(f"bpftool sees the link ({way})", held == wanted, (held, wanted))
        report.quartet(
            f"message program {way}, away",
            "sockmap_attach",
            {**options, "state": "absent"},
            lambda: not _counts(2) or "still there",
        )
        report.set_up("sockets are left alone", "cgroup_attach", {**filling, "state": "absent"})
        report.set_up(
            "socket programs away", "bpf_prog", {**given, "state": "absent", "discard_maps": True}
        )
    if not has_links:
        report.set_up("socket programs again", "bpf_prog", given)
        report.refused(
            "a socket map's link",
            "sockmap_attach",
            linked,
            "Linux 6.10 has; leave the option link out",
        )
        report.set_up(
            "socket programs away again",
            "bpf_prog",
            {**given, "state": "absent", "discard_maps": True},
        )
    os.rmdir(f"{witness.cgroup2()}/modsockets")
    report.changed_by_hand()
    report.features["sockmap_attach"] = (
        "link"
        if has_links
        else "legacy, read back"
        if witness.kernel() >= (5, 18)
        else "legacy, as recorded"
    )


def _counts(version: int) -> bool:
    """Whether messages of a new connection are counted by the program of this version."""
    pin = f"{HOME}/s/maps/messages"

    def counted() -> int:
        return next(
            int(each["value"]) for each in witness.entries(pin) if int(each["key"]) == version
        )

    before = counted()
    traffic.talk(f"{witness.cgroup2()}/modsockets")
    return counted() > before
