# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs at interfaces: XDP in both modes and shared, tc with TCX and with clsact."""

from __future__ import annotations

import os
from typing import Any

import traffic
import witness
from quartet import Report

HOME = f"{witness.BPFFS}/ebpf_fleet/modtry"
PLAIN, NEAR, FAR = "modplain", "modnear", "modfar"


def interfaces() -> None:
    """A device that has no native XDP, and a wire with two ends."""
    no_interfaces()
    for words in (
        ("link", "add", PLAIN, "type", "bridge"),
        ("link", "add", NEAR, "type", "veth", "peer", "name", FAR),
    ):
        witness.say("ip", *words)
    for name in (PLAIN, NEAR, FAR):
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w", encoding="ascii") as file:
            file.write("1")
        witness.say("ip", "link", "set", name, "up")


def no_interfaces() -> None:
    """They are gone again."""
    for name in (PLAIN, NEAR):
        if os.path.exists(f"/sys/class/net/{name}"):
            witness.say("ip", "link", "del", name)


def programs(report: Report, objects: str) -> None:
    """Programs that let everything pass, and programs that let nothing."""
    given = {"object": f"{objects}/test_packets.bpf.o", "pin_dir": "modtry/n", "remote_src": True}
    report.set_up("packet programs", "bpf_prog", given)


def no_programs(report: Report) -> None:
    """They are gone again."""
    report.set_up("packet programs away", "bpf_prog", {"pin_dir": "modtry/n", "state": "absent"})


def xdp(report: Report, card: str) -> None:
    """Native on the machine's card and a virtual wire, generic elsewhere; by links and without."""
    driver = os.path.basename(os.path.realpath(f"/sys/class/net/{card}/device/driver"))
    for interface, mode, by_link in (
        (card, "native", True),
        (card, "native", False),
        (PLAIN, "auto", False),
    ):
        _place(report, interface, mode, by_link)
    _no_native(report)
    _packets(report)
    report.features["xdp_attach_native"] = f"link, {driver} and veth"
    report.features["xdp_attach_generic"] = "link"


def _place(report: Report, interface: str, mode: str, by_link: bool) -> None:
    """Attach, replace, and away again."""
    title = f"XDP {mode} on {interface} {'by a link' if by_link else 'over netlink'}"
    link = {"link": f"modtry/x_{interface}"} if by_link else {}
    links = []
    for program in ("xdp_admit", "xdp_refuse"):
        options: dict[str, Any] = {
            "interface": interface,
            "mode": mode,
            "prog": f"modtry/n/{program}",
            **link,
        }
        real = "generic" if mode == "auto" else mode

        def there(program: str = program, real: str = real) -> object:
            found, wanted = (
                witness.xdp(interface),
                {real: witness.prog(f"{HOME}/n/{program}")["id"]},
            )
            return found == wanted or (found, wanted)

        report.quartet(f"{title}, {program}", "xdp_attach", options, there)
        if by_link:
            links.append(witness.link(f"{HOME}/x_{interface}")["id"])
    report.require(f"{title}: the link took the new program", len({*links}) < 2, links)
    gone = {**options, "state": "absent"}
    report.quartet(
        f"{title}, away",
        "xdp_attach",
        gone,
        lambda: not witness.xdp(interface) or witness.xdp(interface),
    )


def _no_native(report: Report) -> None:
    """A driver without native mode: since 6.3 that is known before; nothing is left attached."""
    options = {
        "interface": PLAIN,
        "mode": "native",
        "prog": "modtry/n/xdp_admit",
        "link": f"modtry/x_{PLAIN}",
    }
    report.refused(
        "native mode that is not there",
        "xdp_attach",
        options,
        "native",
        check=witness.kernel() >= (6, 3),
    )
    report.require("nothing is attached then", not witness.xdp(PLAIN), witness.xdp(PLAIN))


def _packets(report: Report) -> None:
    """What is attached decides on real packets."""
    for mode in ("native", "generic"):
        options = {
            "interface": NEAR,
            "mode": mode,
            "prog": "modtry/n/xdp_refuse",
            "link": f"modtry/x_{NEAR}",
        }
        report.require("packets arrive without a program", traffic.arrives(FAR, NEAR))
        report.quartet(
            f"packets are refused, {mode}",
            "xdp_attach",
            options,
            lambda: not traffic.arrives(FAR, NEAR),
        )
        report.quartet(
            f"packets are admitted, {mode}",
            "xdp_attach",
            {**options, "prog": "modtry/n/xdp_admit"},
            lambda: traffic.arrives(FAR, NEAR),
        )
        report.set_up(f"packets need nobody, {mode}", "xdp_attach", {**options, "state": "absent"})


def shared(report: Report) -> None:
    """Two programs on one interface, by a dispatcher."""
    objects = os.path.join(os.path.dirname(__file__), "objects")
    given = {
        "object": f"{objects}/test_packets.bpf.o",
        "pin_dir": "modtry/e",
        "type": "ext",
        "programs": ["xdp_admit", "xdp_refuse"],
        "remote_src": True,
    }
    report.set_up("components", "bpf_prog", given)
    for priority, program in enumerate(("xdp_admit", "xdp_refuse")):
        options = {"interface": NEAR, "prog": f"modtry/e/{program}", "priority": 10 + priority}
        report.quartet(f"component {program}", "xdp_attach", options)
    report.require("the second component has its say", not traffic.arrives(FAR, NEAR))
    name = witness.bpftool("prog", "show", "id", str(*witness.xdp(NEAR).values()))["name"]
    report.require("a dispatcher is attached", name == "xdp_dispatcher", name)
    for program in ("xdp_refuse", "xdp_admit"):
        report.set_up(
            f"component {program} away",
            "xdp_attach",
            {"interface": NEAR, "prog": f"modtry/e/{program}", "state": "absent"},
        )
    report.require("no dispatcher is left", not witness.xdp(NEAR), witness.xdp(NEAR))
    report.set_up("components away", "bpf_prog", {**given, "state": "absent"})
    report.features["xdp_components"] = "dispatcher"


def tc(report: Report) -> None:
    """Both directions, as clsact filters and by TCX links where there are."""
    has_tcx = witness.kernel() >= (6, 6)
    for direction in ("ingress", "egress"):
        _filter(report, direction)
        link = {
            "interface": NEAR,
            "direction": direction,
            "prog": "modtry/n/tc_admit",
            "link": f"modtry/t_{direction}",
        }
        if has_tcx:
            _tcx(report, link)
        else:
            report.refused(f"TCX {direction}", "tc_attach", link, "Linux 6.6 has; leave link out")
    report.features["tc_attach"] = "TCX link, clsact" if has_tcx else "clsact"


def _filter(report: Report, direction: str) -> None:
    for program in ("tc_admit", "tc_refuse"):
        options = {"interface": NEAR, "direction": direction, "prog": f"modtry/n/{program}"}

        def there(program: str = program) -> object:
            found, wanted = (
                witness.filters(NEAR, direction),
                witness.prog(f"{HOME}/n/{program}")["id"],
            )
            return found == [wanted] or (found, wanted)

        report.quartet(f"clsact {direction}, {program}", "tc_attach", options, there)
        _meets(report, f"clsact {direction}", direction, program)
    report.quartet(
        f"clsact {direction} away",
        "tc_attach",
        {**options, "state": "absent"},
        lambda: not witness.filters(NEAR, direction),
    )


def _tcx(report: Report, base: dict[str, Any]) -> None:
    direction, ids = base["direction"], []
    for program in ("tc_admit", "tc_refuse"):
        options = {**base, "prog": f"modtry/n/{program}"}

        def there(program: str = program) -> object:
            found, wanted = witness.tcx(NEAR, direction), witness.prog(f"{HOME}/n/{program}")["id"]
            return found == [wanted] or (found, wanted)

        report.quartet(f"TCX {direction}, {program}", "tc_attach", options, there)
        _meets(report, f"TCX {direction}", direction, program)
        ids.append(witness.link(f"{HOME}/t_{direction}")["id"])
    report.require(f"TCX {direction}: the link took the new program", len({*ids}) == 1, ids)
    report.quartet(
        f"TCX {direction} away",
        "tc_attach",
        {**options, "state": "absent"},
        lambda: not witness.tcx(NEAR, direction),
    )


def _meets(report: Report, title: str, direction: str, program: str) -> None:
    """The program runs for packets; what goes out shows at the other end whether it was let."""
    with traffic.counted():
        ran = traffic.rises(
            f"{HOME}/n/{program}", lambda: traffic.send(FAR if direction == "ingress" else NEAR)
        )
    report.require(f"{title}: {program} runs", ran)
    if direction == "egress":
        report.require(
            f"{title}: {program} decides", traffic.arrives(NEAR, FAR) is (program == "tc_admit")
        )
