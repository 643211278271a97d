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
OWN = [([1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1, 2]), ([2, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 3])]


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
    own = [
        (_numbers(each["key"]), _numbers(each["value"]))
        for each in witness.bpftool("map", "dump", "pinned", f"{HOME}/own")
    ]
    report.require("the map has its entries", sorted(own) == OWN, own)
    report.features["map_entries"] = "yes"
    if not loads:
        return
    report.require(
        "the label is in the kernel",
        witness.metadata(_prog("packets/xdp_admit")).get("scenario") == "modules",
        _prog("packets/xdp_admit"),
    )
    _equal(
        report, "XDP is native on the card", witness.xdp(card), {"native": _id("packets/xdp_admit")}
    )
    _equal(report, "by a link", witness.link(f"{HOME}/xdp")["prog_id"], _id("packets/xdp_admit"))
    there = witness.tcx if witness.kernel() >= (6, 6) else witness.filters
    _equal(report, "tc has its program", there(card, "ingress"), [_id("packets/tc_admit")])
    with traffic.counted():
        for name in ("packets/xdp_admit", "packets/tc_admit"):
            report.require(
                f"{name} runs for packets of the network",
                traffic.rises(f"{HOME}/{name}", lambda: None, 40),
            )
    _equal(
        report,
        "the cgroup has its program",
        witness.cgroup(_group(), "cgroup_sock_ops"),
        [_id("sockets/insert")],
    )
    report.require("messages are counted", _messages())
    _stack(report)
    report.features |= {"prog_load": "yes", "stack": "yes"}


def _stack(report: Report) -> None:
    known = witness.metadata(witness.prog(f"{STACK}/admit"))
    report.require(
        "the release is in the kernel",
        (known.get("stack"), known.get("release")) == ("modules_stack", "first"),
        known,
    )
    _equal(
        report,
        "XDP is generic on an interface without a driver",
        witness.xdp(PLAIN),
        {"generic": witness.prog(f"{STACK}/admit")["id"]},
    )
    egress = witness.cgroup(_group(), "cgroup_inet_egress")
    _equal(
        report,
        "the cgroup's packets meet the stack's program",
        egress,
        [witness.prog(f"{STACK}/egress")["id"]],
    )
    _equal(
        report,
        "the stack's map has its entry",
        witness.entries(f"{STACK}/maps/refused"),
        [{"key": 99, "value": 1}],
    )


def _equal(report: Report, title: str, found: object, wanted: object) -> None:
    report.require(title, found == wanted, f"{found}, not {wanted}")


def _numbers(shown: list[str]) -> list[int]:
    return [int(each, 16) for each in shown]


def _prog(name: str) -> dict[str, Any]:
    return witness.prog(f"{HOME}/{name}")


def _id(name: str) -> int:
    return int(_prog(name)["id"])


def _messages() -> bool:
    def counted() -> int:
        return sum(int(each["value"]) for each in witness.entries(f"{HOME}/maps/messages"))

    before = counted()
    traffic.talk(_group())
    return counted() > before


def harm(card: str, loads: bool) -> None:
    """By hand, with bpftool: an entry deleted, and whatever can be detached."""
    witness.bpftool("map", "delete", "pinned", f"{HOME}/own", "key", "1", "0", "0", "0")
    if not loads:
        return
    witness.bpftool("link", "detach", "pinned", f"{HOME}/xdp")
    witness.bpftool(
        "cgroup",
        "detach",
        _group(),
        "sock_ops" if _old_bpftool() else "cgroup_sock_ops",
        "pinned",
        f"{HOME}/sockets/insert",
    )
    os.unlink(f"{STACK}/egress_link")
    witness.bpftool("map", "delete", "pinned", f"{STACK}/maps/refused", "key", "99", "0", "0", "0")
    os.unlink(f"{HOME}/packets/tc_refuse")
    if witness.kernel() < (6, 6):
        witness.say("tc", "filter", "del", "dev", card, "ingress")
    else:
        witness.bpftool("link", "detach", "pinned", f"{HOME}/tc")


def _old_bpftool() -> bool:
    return int(witness.say("bpftool", "version").split("v", 1)[1].split(".")[0]) < 7


def leave(report: Report, card: str, loads: bool) -> None:
    """Everything away, by the modules themselves."""
    away: list[tuple[str, dict[str, Any]]] = []
    if loads:
        link = {"link": "modules/tc"} if witness.kernel() >= (6, 6) else {}
        away = [
            (
                "cgroup_attach",
                {
                    "cgroup": GROUP,
                    "prog": "modules/sockets/insert",
                    "attach_type": "cgroup_sock_ops",
                    "mode": "multi",
                },
            ),
            (
                "sockmap_attach",
                {
                    "map": "modules/maps/sockets",
                    "prog": "modules/sockets/count",
                    "link": "modules/messages",
                    "link_fallback": True,
                    "drain": "force",
                },
            ),
            (
                "tc_attach",
                {
                    "interface": card,
                    "direction": "ingress",
                    "prog": "modules/packets/tc_admit",
                    **link,
                },
            ),
            ("xdp_attach", {"interface": card, "link": "modules/xdp"}),
            (
                "bpf_prog",
                {"pin_dir": "modules/sockets", "pin_maps": "modules/maps", "discard_maps": True},
            ),
            ("bpf_prog", {"pin_dir": "modules/packets"}),
        ]
    for module, options in (*away, ("bpf_map_pin", {"pin": "modules/own", "discard_data": True})):
        report.set_up(f"{module} takes it away", module, {**options, "state": "absent"})
    for name, gone in _leftovers(card).items():
        report.require(name, gone())
    witness.say("ip", "link", "del", PLAIN)
    os.rmdir(_group())
    Path(NOTE).unlink(missing_ok=True)
    shutil.rmtree(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _leftovers(card: str) -> dict[str, Callable[[], bool]]:
    return {
        "nothing is pinned": lambda: not os.path.exists(HOME) and not os.path.exists(STACK),
        "no XDP program is left": lambda: not witness.xdp(card) and not witness.xdp(PLAIN),
        "no tc program is left": lambda: not witness.filters(card, "ingress"),
        "no program of a cgroup is left": lambda: not any(_whole()["hooks"].values()),
    }
