# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open files and have packets dropped as soon as a trace runs, and say what was done.

    provoke.py opens|drops|kprobe FILE     wait for the trace's last probe, do it, write what it was as JSON to FILE, end the trace
    provoke.py kill WHAT            kill a trace: WHAT is tracer, module or compiling
    provoke.py held                 what BPF there is: ids of programs, maps and links, and the probes of the kernel

With nothing but Python and what it asks: bpftool, ip, nft.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

PATIENCE = 600  # seconds for a trace to compile, on a slow machine
OPENS = 400
NAMESPACE = "fleet-drops"
FILTERED, CLOSED, FULL = 41001, 41002, 41003  # UDP ports in that namespace
PACKETS = 30
# The probes of each trace, as bpftool calls them; a kprobe and a kretprobe have the same name.
PROBES = {
    "opens": [
        f"sys_{side}_{call}" for side in ("enter", "exit") for call in ("open", "openat", "openat2")
    ],
    "drops": ["kfree_skb"],
    "kprobe": ["do_sys_openat2", "do_sys_openat2"],
    "closes": ["sys_enter_close"],
}


def bpftool(*words: str) -> Any:
    """What bpftool says; it is asked again when something that it lists goes meanwhile."""
    for _try in range(10):
        said = subprocess.run(
            ["bpftool", "-j", *words], check=False, capture_output=True, text=True
        )
        if said.returncode == 0:
            return json.loads(said.stdout or "[]")
        time.sleep(0.5)
    raise SystemExit(f"bpftool {' '.join(words)}: {said.stdout}{said.stderr}")


def held() -> dict[str, Any]:
    """All that a trace could leave behind.

    Programs of control groups are systemd's, which makes them anew whenever it reads its units.
    """
    probes = Path("/sys/kernel/tracing/kprobe_events")
    programs = [one for one in bpftool("prog", "show") if not one["type"].startswith("cgroup_")]
    return {
        "prog": sorted(one["id"] for one in programs),
        **{kind: sorted(one["id"] for one in bpftool(kind, "show")) for kind in ("map", "link")},
        "probes": [one.get("func") or one.get("tracepoint") for one in bpftool("perf", "show")],
        "kprobe_events": probes.read_text(encoding="ascii") if probes.exists() else "",
    }


def await_trace(kind: str) -> int:
    """Wait until all of the trace's functions are attached. Returns the process that traces."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        attached: dict[int, Counter[str]] = {}
        for one in bpftool("perf", "show"):
            name = one.get("func") or one.get("tracepoint") or ""
            attached.setdefault(int(one["pid"]), Counter()).update([name])
        for pid, names in attached.items():
            if not Counter(PROBES[kind]) - names:
                return pid
        time.sleep(1)  # under emulation bpftool takes a second itself
    raise SystemExit(f"no trace of {kind} within {PATIENCE} s: {bpftool('perf', 'show')}")


def opens() -> dict[str, Any]:
    """Files that are there, and some that are not, each opened once."""
    directory = tempfile.mkdtemp(prefix="fleet-opens-")
    opened, missing = [], []
    try:
        for number in range(OPENS):
            path = f"{directory}/{'long-' * (number % 40)}{number}"
            if number % 4:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                opened.append(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.open(path, os.O_RDONLY)
                missing.append(path)
    finally:
        for path in opened:
            os.unlink(path)
        os.rmdir(directory)  # shutil.rmtree would open it, which is one call more
    return {"directory": directory, "pid": os.getpid(), "opened": opened, "missing": missing}


def drops() -> dict[str, Any]:
    """Packets to a port that a rule filters, to one where nobody is, and to one that nobody reads."""
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        inside = [
            "ip",
            "netns",
            "exec",
            NAMESPACE,
            sys.executable,
            os.path.abspath(__file__),
            "send",
        ]
        said = subprocess.run(inside, check=True, capture_output=True, text=True)
        found: dict[str, Any] = json.loads(said.stdout)
        return found
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def send() -> dict[str, Any]:
    """In the namespace: send, and ask the kernel's own counters what became of it."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    rules = (
        "add table inet fleet; add chain inet fleet in { type filter hook input priority 0; };"
        f"add rule inet fleet in udp dport {FILTERED} counter drop"
    )
    subprocess.run(["nft", rules], check=True)
    before = counters()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is
        reader.bind(("127.0.0.1", FULL))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _packet in range(PACKETS):
                for port in (FILTERED, CLOSED, FULL):
                    sender.sendto(bytes(700), ("127.0.0.1", port))
        after = counters()
    for _connection in range(PACKETS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
            if client.connect_ex(("127.0.0.1", CLOSED)) != errno.ECONNREFUSED:
                raise SystemExit("a port that is closed does not refuse")
    listed = json.loads(
        subprocess.run(
            ["nft", "-j", "list", "ruleset"], check=True, capture_output=True, text=True
        ).stdout
    )
    rule = next(item["rule"] for item in listed["nftables"] if "rule" in item)
    filtered = next(part["counter"]["packets"] for part in rule["expr"] if "counter" in part)
    return {
        "filtered": filtered,
        "closed": after["NoPorts"] - before["NoPorts"],
        "full": after["RcvbufErrors"] - before["RcvbufErrors"],
        "refused": PACKETS,
    }


def counters() -> dict[str, int]:
    """The namespace's counters of UDP."""
    lines = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
    return dict(zip(names, map(int, values)))


def kill(what: str) -> None:
    """Kill the process that traces, or the module that started it, at once or while BCC compiles."""
    pid = await_compiler() if what == "compiling" else await_trace("kprobe")
    time.sleep(random.uniform(0, 1))
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    module = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:"))
    os.kill(pid if what == "tracer" else module, signal.SIGKILL)


def await_compiler() -> int:
    """Wait for a process that has BCC's library. Returns it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for maps in Path("/proc").glob("[0-9]*/maps"):
            with contextlib.suppress(OSError):
                if "libbcc.so" in maps.read_text(encoding="ascii", errors="replace"):
                    return int(maps.parent.name)
        time.sleep(0.2)
    raise SystemExit(f"nobody compiles within {PATIENCE} s")


def main(words: list[str]) -> None:
    """Do what is asked."""
    if words[0] == "held":
        print(json.dumps(held()))
    elif words[0] == "kill":
        kill(words[1])
    elif words[0] == "send":
        print(json.dumps(send()))
    else:
        tracer = await_trace(words[0])
        done = drops() if words[0] == "drops" else opens()
        Path(words[1]).write_text(json.dumps(done), encoding="utf-8")
        os.kill(tracer, signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1:])
