# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine says of itself by bpftool, iproute2, nft, systemd and /proc; none of it is ours.

witness.py TOLD          everything, as JSON
witness.py kill          kills the health service, and waits for systemd to start it again
witness.py nothing TOLD  fails unless nothing of the two roles is left
"""

from __future__ import annotations

import glob
import ipaddress
import json
import platform
import re
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MAPS = Path("/sys/fs/bpf/ebpf_fleet/xdp_lb/maps")
HEALTH = "ebpf-fleet-health-xdp_lb"
TABLE = "xdp_lb_witness"
HEALTHS = ("unknown", "up", "down")  # layout.h
TOO_BIG_SENT, ECHO_REPLIED = 15, 13
PATIENCE = 180.0  # seconds


def said(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def dump(name: str) -> list[dict[str, Any]]:
    """A pinned map's entries as bpftool formats them with the map's own types."""
    found = json.loads(said("bpftool", "-j", "map", "dump", "pinned", str(MAPS / name)))
    return [entry["formatted"] for entry in found]


def link(name: str) -> dict[str, Any]:
    """Counters of an interface, and its XDP program; mode 1 is native (linux/if_link.h)."""
    shown = json.loads(said("ip", "-json", "-details", "-stats", "link", "show", "dev", name))[0]
    counted = shown["stats64"]
    return {
        **{f"rx_{key}": counted["rx"][key] for key in ("packets", "bytes")},
        **{f"tx_{key}": counted["tx"][key] for key in ("packets", "bytes")},
        "mode": shown.get("xdp", {}).get("mode", 0),
        "program": shown.get("xdp", {}).get("prog", {}).get("name", ""),
    }


def native(name: str) -> bool:
    """Whether bpftool calls what is attached to the interface native, too."""
    (found,) = json.loads(said("bpftool", "-j", "net", "show"))
    return any(each["devname"] == name and each["mode"] == "driver" for each in found["xdp"])


def balancer() -> dict[str, Any] | None:
    """What has been sent to whom, by service; None where nothing balances."""
    if not MAPS.is_dir():
        return None
    names = {entry["key"]: entry["value"]["name"] for entry in dump("service_names")}
    backends = {entry["key"]: entry["value"] for entry in dump("backends")}
    sent: dict[str, Any] = {name: {} for name in names.values() if name}
    for entry in dump("backend_counters"):
        backend = backends[entry["key"]]
        if backend["family"]:
            values = [cpu["value"] for cpu in entry["values"]]
            sent[names[backend["service"]]][address(backend)] = {
                "packets": sum(value["packets"] for value in values),
                "connections": sum(value["connections"] for value in values),
                "health": HEALTHS[backend["health"]],
            }
    reasons = {
        entry["key"]: sum(cpu["value"] for cpu in entry["values"]) for entry in dump("reasons")
    }
    return {
        "sent": sent,
        "too_big_sent": reasons[TOO_BIG_SENT],
        "echo_replied": reasons[ECHO_REPLIED],
    }


def address(backend: dict[str, Any]) -> str:
    raw = struct.pack("=4I", *backend["address"]["word"])
    return str(ipaddress.ip_address(raw if backend["family"] == 10 else raw[:4]))


def health_service() -> dict[str, str]:
    names = "ActiveState,SubState,NRestarts,UnitFileState"
    lines = said("systemctl", "show", HEALTH, "--property", names).splitlines()
    return dict(line.split("=", 1) for line in lines)


def counters() -> dict[str, int]:
    """Packets that this host's stack met, by way of forwarding; see server.py."""
    done = subprocess.run(
        ["nft", "-j", "list", "counters", "table", "inet", TABLE],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    found = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
    return {
        each["counter"]["name"]: each["counter"]["packets"] for each in found if "counter" in each
    }


def tunnels() -> dict[str, int]:
    """Packets that each of the role's tunnel devices has unpacked, by kind and number."""
    shown = json.loads(said("ip", "-json", "-details", "-stats", "link", "show"))
    return {
        each["ifname"]: each["stats64"]["rx"]["packets"]
        for each in shown
        if re.match(r"lb[46]_", each.get("ifname", ""))
    }


def vips(told: dict[str, Any]) -> list[str]:
    """Which of the services' addresses this host has."""
    shown = json.loads(said("ip", "-json", "address", "show"))
    ours = {each.get("local") for interface in shown for each in interface.get("addr_info", ())}
    return sorted(ours & {way["vip"] for way in told["ways"]})


def sysctls(name: str) -> dict[str, int]:
    base = Path("/proc/sys/net/ipv4/conf") / name
    names = ("arp_ignore", "arp_announce", "rp_filter", "forwarding")
    return {key: int((base / key).read_text()) for key in names}


def checked() -> bool:
    """Whether the health service has found all web servers up."""
    backends = [entry["value"] for entry in dump("backends") if entry["value"]["family"]]
    names = {entry["key"]: entry["value"]["name"] for entry in dump("service_names")}
    web = [backend for backend in backends if names[backend["service"]].startswith("web")]
    return bool(web) and all(HEALTHS[backend["health"]] == "up" for backend in web)


def everything(told: dict[str, Any]) -> dict[str, Any]:
    name = told["interface"]
    if told["name"] in told["balancers"]:
        deadline = time.monotonic() + PATIENCE
        while not checked() and time.monotonic() < deadline:
            time.sleep(2)
    return {
        "kernel": platform.release(),
        "link": link(name),
        "native": native(name),
        "balancer": balancer(),
        "health": health_service() if told["name"] in told["balancers"] else None,
        "counters": counters(),
        "tunnels": tunnels(),
        "vips": vips(told),
        "sysctls": sysctls(name),
    }


def kill() -> None:
    """A service that is killed is one more that systemd has started."""
    before = int(health_service()["NRestarts"])
    said("systemctl", "kill", "--signal=KILL", HEALTH)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        now = health_service()
        if int(now["NRestarts"]) > before and now["ActiveState"] == "active":
            return
        time.sleep(0.5)
    sys.exit(f"{HEALTH} is not started again: {health_service()}")


def nothing(told: dict[str, Any]) -> None:
    name = told["interface"]
    found = sysctls(name)
    left = [
        *([f"XDP program {link(name)['program']}"] if link(name)["mode"] else []),
        *glob.glob("/sys/fs/bpf/ebpf_fleet/*xdp_lb*"),
        *glob.glob(f"/etc/systemd/system/{HEALTH}*"),
        *glob.glob("/etc/sysctl.d/*xdp_lb*"),
        *tunnels(),
        *vips(told),
        *[
            f"{key} {found[key]}"
            for key in ("arp_ignore", "arp_announce", "forwarding")
            if found[key]
        ],
        *([] if found["rp_filter"] == 1 else [f"rp_filter {found['rp_filter']}"]),
        *[line for line in said("ip", "rule", "show").splitlines() if line.startswith("779")],
        *[line for line in said("ip", "-6", "rule", "show").splitlines() if line.startswith("779")],
    ]
    if left:
        sys.exit(f"left behind: {', '.join(left)}")


if __name__ == "__main__":
    if sys.argv[1] == "kill":
        kill()
    elif sys.argv[1] == "nothing":
        nothing(json.loads(sys.argv[2]))
    else:
        print(json.dumps(everything(json.loads(sys.argv[1]))))
