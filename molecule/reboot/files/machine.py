# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: a service whose first connections are watched, and what a boot has come to.

    python3 - install           the service is there, and starts at every boot
    python3 - check EXPECTED    what is not as expected (JSON), or else what is there, as JSON
    python3 - remove            nothing of it is left

The service is an ordinary one: no dependency on ebpf.fleet, after network.target, in a slice that
the accelerator serves. The witnesses are the interface's byte counters, bpftool and the journal.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SCRIPT = Path("/usr/local/lib/molecule-first.py")
UNIT = Path("/etc/systemd/system/molecule-first.service")
SEEN = Path("/run/molecule-first.json")  # /run is new with every boot
SLICE = "/sys/fs/cgroup/molecule.slice"
PINS = "/sys/fs/bpf/ebpf_fleet/sockmap"
LEFTOVERS = (
    PINS,
    SLICE,
    "/var/lib/ebpf-fleet",
    "/usr/local/sbin/ebpf-fleet",
    "/etc/systemd/system/ebpf-fleet-early.service",
)
BYTES = 1 << 20
CONNECTIONS = 4
PORT = 9001
PATIENCE = 180  # seconds; a machine is emulated, and shares its processors with others

FIRST = f'''\
import json, pathlib, socket, subprocess

def counted():
    words = ["bpftool", "-j", "map", "dump", "pinned", "{PINS}/maps/counters"]
    done = subprocess.run(words, check=False, capture_output=True)
    found = {{}}
    if done.returncode == 0:
        for each in json.loads(done.stdout)[0]["formatted"]["values"]:
            for name, count in each["value"].items():
                found[name] = found.get(name, 0) + int(count)
    for line in open("/proc/net/dev"):
        name, _, figures = line.partition(":")
        if name.strip() == "lo":
            found["interface"] = int(figures.split()[0])
    return found

server = socket.create_server(("127.0.0.1", {PORT}))
counts = [counted()]
for _number in range({CONNECTIONS}):
    client = socket.create_connection(("127.0.0.1", {PORT}))
    accepted, _ = server.accept()
    for _block in range({BYTES} // 16384):
        client.sendall(bytes(16384))
        left = 16384
        while left:
            left -= len(accepted.recv(left))
    counts.append(counted())
    client.close()
    accepted.close()
seen = {{"counts": counts, "group": open("/proc/self/cgroup").read()}}
pathlib.Path("{SEEN}").write_text(json.dumps(seen))
'''

SERVICE = f"""\
[Unit]
Description=The first connection after a boot
After=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
Slice=molecule.slice
ExecStart=/usr/bin/python3 {SCRIPT}

[Install]
WantedBy=multi-user.target
"""


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: {done.stderr or done.stdout}")
    return done.stdout


def install() -> None:
    SCRIPT.write_text(FIRST, encoding="ascii")
    UNIT.write_text(SERVICE, encoding="ascii")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", UNIT.name)


def remove() -> None:
    subprocess.run(["systemctl", "disable", "--now", UNIT.name], check=False)
    for path in (UNIT, SCRIPT, SEEN):
        path.unlink(missing_ok=True)
    run("systemctl", "daemon-reload")
    run("systemctl", "stop", "molecule.slice")
    left = [path for path in map(Path, LEFTOVERS) if path.exists()]
    if left:
        raise SystemExit(f"left behind: {', '.join(map(str, left))}")


def properties(unit: str, *names: str) -> dict[str, str]:
    shown = run("systemctl", "show", unit, f"--property={','.join(names)}")
    return dict(line.split("=", 1) for line in shown.splitlines() if line)


def await_boot() -> None:
    end = time.monotonic() + PATIENCE
    while properties(UNIT.name, "ActiveState")["ActiveState"] in ("inactive", "activating"):
        if time.monotonic() > end:
            raise SystemExit(f"{UNIT.name} has not run within {PATIENCE} s")
        time.sleep(0.5)


def guards() -> list[str]:
    shown = run("systemctl", "list-units", "--plain", "--no-legend", "ebpf-fleet-guard-*")
    return [line.split()[0] for line in shown.splitlines()]


def await_guards() -> None:
    end = time.monotonic() + PATIENCE
    while guards():
        if time.monotonic() > end:
            raise SystemExit(f"{guards()} have not ended within {PATIENCE} s")
        time.sleep(0.5)


def microseconds(unit: str, moment: str) -> int:
    return int(properties(unit, moment)[moment])


def said() -> list[dict[str, Any]]:
    """What the engine told the journal since this boot: text and priority."""
    lines = run("journalctl", "-b", "-t", "ebpf-fleet", "-o", "json", "--no-pager").splitlines()
    return [
        {"text": each["MESSAGE"], "priority": int(each["PRIORITY"])}
        for each in map(json.loads, lines)
    ]


def ports() -> list[int]:
    """The ports of the policy; bpftool prints the key's big-endian member as this host reads it."""
    entries = json.loads(run("bpftool", "-j", "map", "dump", "pinned", f"{PINS}/maps/policy_ports"))
    read = [entry["formatted"]["key"]["port"] for entry in entries]
    return sorted(int.from_bytes(port.to_bytes(2, sys.byteorder), "big") for port in read)


def attached() -> list[int]:
    """Programs that links hold at the slice.

    `cgroup show` of bpftool 7.1 needs Linux 6.1; `link show pinned` of 7.5 fails after its answer.
    """
    ours = {entry.path for entry in os.scandir(f"{PINS}/cgroups")}
    return [
        link["prog_id"]
        for link in json.loads(run("bpftool", "-jf", "link", "show"))
        if ours.intersection(link.get("pinned", ())) and link["cgroup_id"] == os.stat(SLICE).st_ino
    ]


def observe() -> dict[str, Any]:
    status = subprocess.run(
        ["ebpf-fleet", "--json", "status"], check=False, capture_output=True, text=True
    )
    (stack,) = [each for each in json.loads(status.stdout) if each["name"] == "sockmap"]
    return {
        "kernel": os.uname().release,
        "condition": stack["condition"],
        "declared": stack["active"],
        "runs": stack["running"],
        "reason": stack["reason"],
        "programs": attached(),
        "ports": ports(),
        "guards": len(guards()),
        "failed": run(
            "systemctl", "list-units", "--failed", "--plain", "--no-legend", "ebpf-fleet*"
        ),
        "said": said(),
    }


def faults(seen: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    found = [
        f"{name} is {seen[name]!r}, expected was {wanted!r}"
        for name, wanted in expected.items()
        if name in seen and seen[name] != wanted
    ]
    if not seen["programs"]:
        found.append(f"bpftool shows no program at {SLICE}")
    if seen["failed"]:
        found.append(f"units have failed: {seen['failed']}")
    for priority, text in expected.get("journal", []):
        if not any(text in line["text"] and line["priority"] == priority for line in seen["said"]):
            found.append(f"the journal does not say with priority {priority}: {text}")
    return found


def faults_of_connection(rise: Mapping[str, int]) -> list[str]:
    """What is wrong with a connection, by what was counted while there was no other.

    The data plane has met both its ends. Its bytes went past the interface, unless the data plane
    has left an end on TCP for the one reason that it may have here: it takes one handshake in a
    thousand for one with a SYN cookie, and counts it.
    """
    ends = {name: rise.get(name, 0) for name in ("established", "admitted", "syn_cookie")}
    if ends == {"established": 2, "admitted": 1, "syn_cookie": 1}:
        return []
    if ends != {"established": 2, "admitted": 2, "syn_cookie": 0}:
        return ["the data plane has not admitted both its ends"]
    if rise["redirected_bytes"] < BYTES or rise["interface"] > BYTES / 10:
        return ["its bytes went through the interface"]
    return []


def faults_of_connections(counts: Sequence[Mapping[str, int]]) -> list[str]:
    """What is wrong with them; `counts` are from before the first and after each."""
    found = []
    if counts[0].get("established") != 0:
        found.append("the data plane was not there before the first connection")
    rises = [
        {name: after[name] - before.get(name, 0) for name in after}
        for before, after in zip(counts, counts[1:])
    ]
    for number, rise in enumerate(rises, 1):
        found += [f"connection {number}: {fault}" for fault in faults_of_connection(rise)]
    if not any(rise.get("admitted") == 2 for rise in rises[:2]):
        found.append("neither the first connection nor the second was admitted")
    if found:
        found.append(f"{BYTES} bytes were sent on each; counts: {json.dumps(rises)}")
    return found


def faults_of_boot() -> list[str]:
    """What is wrong with the order of this boot, and with its first connections."""
    if not SEEN.exists():
        return ["the service has left no word of its connections"]
    first = json.loads(SEEN.read_text(encoding="ascii"))
    found = faults_of_connections(first["counts"])
    if "molecule.slice" not in first["group"]:
        found.append(f"the service ran in {first['group']}")
    ready = microseconds("ebpf-fleet-early.service", "ActiveEnterTimestampMonotonic")
    begun = microseconds(UNIT.name, "InactiveExitTimestampMonotonic")
    network = microseconds("network-pre.target", "ActiveEnterTimestampMonotonic")
    if not 0 < ready <= network <= begun:
        found.append(f"order of units: replayed at {ready}, network {network}, service {begun}")
    return found


def check(expected: Mapping[str, Any]) -> None:
    await_boot()
    if not expected.get("guards"):
        await_guards()
    seen = observe()
    found = faults(seen, expected)
    if expected.get("booted"):
        found += faults_of_boot()
    if found:
        raise SystemExit("\n".join([*found, json.dumps(seen, indent=1)]))
    print(json.dumps(seen))


def main(command: str, *arguments: str) -> None:
    if command == "check":
        check(json.loads(arguments[0]))
    else:
        {"install": install, "remove": remove}[command]()


if __name__ == "__main__":
    main(*sys.argv[1:])
