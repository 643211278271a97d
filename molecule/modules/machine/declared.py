# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbook declares: what others see of it, harm done to it, and its end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import traffic
import witness
from quartet import Report, differences

HOME = f"{witness.BPFFS}/ebpf_fleet/modules"
STACK = f"{witness.BPFFS}/ebpf_fleet/modules_stack"
PLAIN, GROUP = "modules0", "modules"
NOTE = "/run/ebpf-fleet-modules.json"


def prepare() -> None:
    """What programs are attached to."""
    if not os.path.exists(f"/sys/class/net/{PLAIN}"):
        witness.say("ip", "link", "add", PLAIN, "type", "bridge")
        witness.say("ip", "link", "set", PLAIN, "up")
    os.makedirs(_group(), exist_ok=True)


def note() -> None:
    """Keep what there is."""
    Path(NOTE).write_text(json.dumps(_whole()), encoding="utf-8")


def same(report: Report) -> None:
    """It is still what it was."""
    before = json.loads(Path(NOTE).read_text(encoding="utf-8"))
    witness.settled(before["state"])
    after = json.loads(json.dumps(_whole()))
    report.require(
        "the check changed nothing",
        after == before,
        {**differences(before["state"], after["state"]), **differences(before, after)},
    )


def _whole() -> dict[str, Any]:
    """With what is attached directly, which the state does not have."""
    hooks = {
        hook: witness.cgroup(_group(), hook) for hook in ("cgroup_sock_ops", "cgroup_inet_egress")
    }
    return {"state": witness.state(), "hooks": hooks}


def _group() -> str:
    return f"{witness.cgroup2()}/{GROUP}"


def seen(report: Report, card: str, loads: bool) -> None:
    """Everything that was declared, as bpftool, ip and tc see it, and what it does."""
    own = witness.bpftool("map", "show", "pinned", f"{HOME}/own")
    _equal(report, "the map is as declared", (own["type"], own["max_entries"]), ("hash", 64))
    if not loads:
        return
    admit = witness.prog(f"{HOME}/packets/xdp_admit")
    _equal(report, "the label is in the kernel", witness.metadata(admit).get("scenario"), "modules")
    _equal(report, "XDP is native on the card", witness.xdp(card), {"native": admit["id"]})
    _equal(report, "by a link", witness.link(f"{HOME}/xdp")["prog_id"], admit["id"])
    _stack(report, card)
    with traffic.counted():
        for pin in (f"{HOME}/packets/xdp_admit", f"{STACK}/tc/tc_admit"):
            ran = traffic.rises(pin, lambda: None, 40)
            report.require(f"{pin} runs for packets of the network", ran)
    report.require("messages are counted", _messages())
    report.features.update(prog_load="yes", stack="yes")


def _stack(report: Report, card: str) -> None:
    admit = witness.prog(f"{STACK}/packets/admit")
    known = witness.metadata(admit)
    released = known.get("stack"), known.get("release")
    _equal(report, "the release is in the kernel", released, ("modules_stack", "first"))
    _equal(report, "XDP is generic without a driver", witness.xdp(PLAIN), {"generic": admit["id"]})
    there = witness.tcx if witness.kernel() >= (6, 6) else witness.filters
    _equal(report, "tc has its program", there(card, "ingress"), [_id("tc/tc_admit")])
    for hook, name in (
        ("cgroup_inet_egress", "packets/egress"),
        ("cgroup_sock_ops", "sockets/insert"),
    ):
        _equal(report, f"the cgroup has its {name}", witness.cgroup(_group(), hook), [_id(name)])
    entries = witness.entries(f"{STACK}/maps/refused")
    _equal(report, "the stack's map has its entry", entries, [{"key": 99, "value": 1}])


def _equal(report: Report, title: str, found: object, wanted: object) -> None:
    report.require(title, found == wanted, f"{found}, not {wanted}")


def _id(name: str) -> int:
    return int(witness.prog(f"{STACK}/{name}")["id"])


def _messages() -> bool:
    def counted() -> int:
        return sum(int(each["value"]) for each in witness.entries(f"{STACK}/socket_maps/messages"))

    before = counted()
    traffic.talk(_group())
    return counted() > before


def harm(card: str, loads: bool) -> None:
    """By hand: pins deleted, an entry deleted, and whatever can be detached."""
    os.unlink(f"{HOME}/own")
    if not loads:
        return
    os.unlink(f"{HOME}/packets/tc_refuse")
    os.unlink(f"{STACK}/egress_link")
    witness.bpftool("link", "detach", "pinned", f"{HOME}/xdp")
    hook = ("cgroup_sock_ops", "pinned", f"{STACK}/sockets/insert")
    witness.bpftool("cgroup", "detach", _group(), *hook)
    entry = ("key", "99", "0", "0", "0")
    witness.bpftool("map", "delete", "pinned", f"{STACK}/maps/refused", *entry)
    if witness.kernel() < (6, 6):
        witness.say("tc", "filter", "del", "dev", card, "ingress")
    else:
        witness.bpftool("link", "detach", "pinned", f"{STACK}/tc_link")


def leave(report: Report, card: str, loads: bool) -> None:
    """Everything away that the stack has not taken with it, by the modules themselves."""
    away: list[tuple[str, dict[str, Any]]] = [
        ("bpf_map_pin", {"pin": "modules/own", "discard_data": True})
    ]
    if loads:
        away += [
            ("xdp_attach", {"interface": card, "link": "modules/xdp"}),
            ("bpf_prog", {"pin_dir": "modules/packets"}),
        ]
    for module, options in away:
        report.set_up(f"{module} takes it away", module, {**options, "state": "absent"})
    for name, gone in _leftovers(card).items():
        report.require(name, gone())
    witness.say("ip", "link", "del", PLAIN)
    os.rmdir(_group())
    Path(NOTE).unlink(missing_ok=True)
    shutil.rmtree(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _leftovers(card: str) -> dict[str, Callable[[], bool]]:
    return {
        "nothing is pinned": lambda: (
            not any(files for home in (HOME, STACK) for _place, _names, files in os.walk(home))
        ),
        "no XDP program is left": lambda: not witness.xdp(card) and not witness.xdp(PLAIN),
        "no tc program is left": lambda: not witness.filters(card, "ingress"),
        "no program of a cgroup is left": lambda: not any(_whole()["hooks"].values()),
    }
