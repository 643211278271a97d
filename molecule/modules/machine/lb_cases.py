# SPDX-License-Identifier: GPL-3.0-or-later
"""The balancer's and the accelerator's own modules, with nothing but the machine itself."""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import Any

import run
import witness
from quartet import Report

HOME = f"{witness.BPFFS}/ebpf_fleet/modtry"
PORT = 9001
SMALL = {
    "services4": 16,
    "services6": 16,
    "service_names": 5,
    "service_counters": 5,
    "rings": 5,
    "backends": 9,
    "backend_counters": 9,
    "next_hops": 9,
}
FLOWS = ("flows", "flows_leaving", "nat_flows", "nat_replies")


def services(report: Report, objects: str, address: str) -> None:
    """Services in the balancer's maps, changed and gone; and a backend of them."""
    maps = {**SMALL, **dict.fromkeys(FLOWS, 1024)}
    plane = {
        "object": f"{objects}/xdp_lb.bpf.o",
        "pin_dir": "modtry/lb",
        "programs": ["xdp_lb"],
        "pin_maps": "modtry/lb/maps",
        "map_max_entries": maps,
        "remote_src": True,
    }
    ring = {
        "object": f"{objects}/maglev.bpf.o",
        "pin_dir": "modtry/lb",
        "programs": ["maglev"],
        "remote_src": True,
    }
    report.set_up("the balancer", "bpf_prog", plane)
    report.set_up("its hashing", "bpf_prog", ring)
    nearby = address.rsplit(".", 1)[0]
    web: dict[str, Any] = {
        "name": "web",
        "vip": "192.0.2.80",
        "port": "80",
        "forwarding": "dsr",
        "backends": [{"address": f"{nearby}.201"}, {"address": f"{nearby}.202"}],
    }
    other = {
        "name": "far",
        "vip": "192.0.2.81",
        "port": "any",
        "protocol": "udp",
        "forwarding": "ipip",
        "backends": [{"address": f"{nearby}.203"}],
    }
    declared = {"pin_dir": "modtry/lb", "services": [web], "sources": {"ipv4": address}}
    names = f"{HOME}/lb/maps/service_names"
    report.quartet(
        "a service", "xdp_lb_services", declared, lambda: "web" in _texts(names) or _texts(names)
    )
    report.quartet(
        "another beside it",
        "xdp_lb_services",
        {**declared, "services": [web, other]},
        lambda: "far" in _texts(names) or _texts(names),
    )
    told = run.module("xdp_lb_info", {"pin_dir": "modtry/lb"})
    report.require(
        "what is balanced is told",
        sorted(each["name"] for each in told.get("services", [])) == ["far", "web"],
        told,
    )
    mine = {
        "name": "mine",
        "vip": "192.0.2.82",
        "port": "80",
        "forwarding": "dsr",
        "backends": [{"address": address}],
    }
    serving = {"services": [mine], "record": "/run/modtry-backend.json"}
    report.quartet(
        "a server behind it",
        "xdp_lb_backend",
        serving,
        lambda: "192.0.2.82" in witness.say("ip", "address", "show", "dev", "lo"),
    )
    report.quartet(
        "the server leaves",
        "xdp_lb_backend",
        {**serving, "state": "absent"},
        lambda: "192.0.2.82" not in witness.say("ip", "address"),
    )
    report.quartet("no services", "xdp_lb_services", {"pin_dir": "modtry/lb", "state": "absent"})
    report.set_up("no hashing", "bpf_prog", {**ring, "state": "absent"})
    report.set_up("no balancer", "bpf_prog", {**plane, "state": "absent", "discard_maps": True})
    report.features["services"] = "yes"


def _texts(pin: str) -> str:
    return (
        "".join(
            chr(int(byte, 16))
            for each in witness.bpftool("map", "dump", "pinned", pin)
            for byte in each["value"]
        )
        if os.path.exists(pin)
        else ""
    )


def probes(report: Report, objects: str) -> None:
    """A server of the machine is asked; the accelerator's data skips the stack."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        threading.Thread(target=_serve, args=(server,), daemon=True).start()
        asked = run.module(
            "xdp_lb_probe",
            {"address": "127.0.0.1", "port": server.getsockname()[1], "connections": 8},
        )
    report.require(
        "a server answers", asked.get("answered") == 8 and asked.get("failures") == [], asked
    )
    _accelerated(report, objects)


def _serve(server: socket.socket) -> None:
    while True:
        try:
            client, _address = server.accept()
        except OSError:
            return
        client.close()


def _accelerated(report: Report, objects: str) -> None:
    given = {
        "object": f"{objects}/sockmap.bpf.o",
        "pin_dir": "modtry/a",
        "pin_maps": "modtry/a/maps",
        "map_max_entries": {"sockets": 1024, "peers": 1024},
        "constants": {"without_fionread": 1},  # the probe does not ask FIONREAD
        "remote_src": True,
    }
    message = {
        "map": "modtry/a/maps/sockets",
        "prog": "modtry/a/sockmap_redirect",
        "link": "modtry/a_msg",
        "link_fallback": True,
        "drain": "force",
    }
    group = {
        "cgroup": "modaccelerated",
        "create_cgroup": True,
        "prog": "modtry/a/sockmap_establish",
        "link": "modtry/a_ops",
    }
    report.set_up("the accelerator", "bpf_prog", given)
    for pin, entries in (
        ("policy_ports", [{"key": {"prefixlen": 16, "port": PORT}, "value": 1}]),
        ("policy_cidrs", [{"key": {"prefixlen": 104, "address": "127.0.0.0"}, "value": 1}]),
    ):
        report.set_up(
            f"its {pin}", "bpf_map_entries", {"map": f"modtry/a/maps/{pin}", "entries": entries}
        )
    report.set_up("its messages", "sockmap_attach", message)
    report.set_up("its cgroup", "cgroup_attach", group)
    for _try in range(5):
        proof = run.module(
            "sockmap_probe",
            {"cgroup": "modaccelerated", "port": PORT, "counters": "modtry/a/maps/counters"},
        )
        # A handshake of so many whole milliseconds looks like a SYN cookie's: left on TCP.
        if not proof.get("counted", {}).get("syn_cookie"):
            break
    skipped = proof.get("bytes_on_interface", 1 << 60) < proof.get("bytes_transferred", 0) / 10
    report.require(
        "its data skips the stack",
        skipped and proof["counted"]["redirected_bytes"] > 0,
        json.dumps(proof),
    )
    report.set_up("its cgroup is left", "cgroup_attach", {**group, "state": "absent"})
    report.set_up("its messages are left", "sockmap_attach", {**message, "state": "absent"})
    report.set_up("no accelerator", "bpf_prog", {**given, "state": "absent", "discard_maps": True})
    os.rmdir(f"{witness.cgroup2()}/modaccelerated")
    report.changed_by_hand()
