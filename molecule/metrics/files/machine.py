# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the machine: Prometheus, and what bpftool says against what Prometheus was told.

    python3 - prepare    Prometheus and node_exporter run, and there is a control group
    python3 - verify     Prometheus has scraped what bpftool says, and no alert fires
    python3 - detach     bpftool detaches a program, and the alert fires
    python3 - quiet      no alert about it fires any more
    python3 - remove     nothing of it is left

What is told is what comes through the exporter, or through node_exporter where the file is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

GROUP = Path("/sys/fs/cgroup/molecule-metrics")
HOME = "/sys/fs/bpf/ebpf_fleet"
FILE = Path("/var/lib/prometheus/node-exporter/ebpf_fleet.prom")
RULES = "/etc/prometheus/ebpf-fleet.rules.yml"
CONFIG, ARGUMENTS = "/etc/prometheus/prometheus.yml", "/etc/default/prometheus-node-exporter"
KEPT = Path("/var/lib/prometheus/molecule-kept")
DATA = Path("/var/lib/prometheus/metrics2")
SERVICES = ("prometheus", "prometheus-node-exporter")
API = "http://127.0.0.1:9090/api/v1"
LEFTOVERS = (
    FILE,
    RULES,
    "/etc/systemd/system/ebpf-fleet-metrics.service",
    f"{HOME}/sockmap",
    "/usr/local/sbin/ebpf-fleet",
)
PATIENCE = 900  # seconds; a machine is emulated, and the alert is for a minute itself

# The intervals of Debian's own file; what is slow here still answers within one.
SCRAPE = f"""
global: {{scrape_interval: 15s, scrape_timeout: 15s, evaluation_interval: 15s}}
rule_files: [{RULES}]
scrape_configs:
  - job_name: exporter
    static_configs: [{{targets: ["127.0.0.1:9435"]}}]
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:9100"]}}]
"""
# What else node_exporter looks at would keep an emulated processor busy.
ONLY_FILES = 'ARGS="--collector.disable-defaults --collector.textfile"\n'
FILES = {CONFIG: SCRAPE, ARGUMENTS: ONLY_FILES}


def run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def bpftool(*words: str) -> Any:
    return json.loads(run("bpftool", "-j", *words) or "[]")


def api(path: str, **parameters: str) -> Any:
    """What Prometheus answers; an empty answer while it does not."""
    url = f"{API}/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.load(answer)["data"]
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return {}


def told(metric: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """The metric's samples in Prometheus: labels and number."""
    labels["job"] = "node" if FILE.exists() else "exporter"
    wanted = ",".join(f'{name}="{value}"' for name, value in labels.items())
    found = api("query", query=f"ebpf_fleet_{metric}{{{wanted}}}").get("result", [])
    return [(each["metric"], float(each["value"][1])) for each in found]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            jobs = [(job["labels"]["job"], job["health"], job["lastError"]) for job in targets()]
            raise SystemExit(f"FAILED: {what}; alerts: {alerts()}; scraped: {jobs}")
        time.sleep(3)


def targets() -> list[dict[str, Any]]:
    return list(api("targets").get("activeTargets", []))


def alerts() -> list[tuple[str, str, str]]:
    """The alerts of the role's rules: name, state and what they are about."""
    return sorted(
        (each["labels"]["alertname"], each["state"], each["annotations"].get("summary", ""))
        for each in api("alerts").get("alerts", [])
        if each["labels"]["alertname"].startswith("EbpfFleet")
    )


def prepare() -> None:
    GROUP.mkdir(exist_ok=True)
    KEPT.mkdir(exist_ok=True)
    for path, text in FILES.items():
        if not (KEPT / Path(path).name).exists():
            shutil.copy2(path, KEPT)
        Path(path).write_text(text, encoding="utf-8")
    run("systemctl", "restart", *SERVICES)
    wait_for(lambda: bool(api("status/buildinfo")), "Prometheus answers")


def programs() -> set[int]:
    """The programs that are pinned as ours."""
    return {
        each["id"]
        for each in bpftool("-f", "prog", "show")
        if any(path.startswith(HOME) for path in each.get("pinned", ()))
    }


def link() -> int:
    """The link that holds a program at the control group; 0 when there is none."""
    number = GROUP.stat().st_ino
    held = [each["id"] for each in bpftool("link", "show") if each.get("cgroup_id") == number]
    return int(held[0]) if held else 0


def entries() -> tuple[int, int]:
    """The id of the accelerator's policy, and how many entries bpftool counts there."""
    pin = f"{HOME}/sockmap/maps/policy_ports"
    return bpftool("map", "show", "pinned", pin)["id"], len(bpftool("map", "dump", "pinned", pin))


def same() -> bool:
    """Whether what was scraped last is what bpftool says."""
    number, held = entries()
    places = told("attachment_in_place", stack="sockmap")
    hooks = sorted((labels["hook"], value) for labels, value in places)
    return (
        {int(labels["id"]) for labels, _one in told("program_info")} == programs()
        and [value for _labels, value in told("map_entries", id=str(number))] == [held]
        and hooks == [("cgroup", 1), ("sockmap", 1)]
        and len(told("stack_info", stack="sockmap")) == 1
    )


def verify() -> None:
    run("systemctl", "reload", "prometheus")
    wait_for(rules_are_known, "Prometheus knows the rules")
    wait_for(same, f"bpftool: {programs()}, {entries()}; told: {told('program_info')}")
    wait_for(lambda: not alerts(), "nothing is wrong")
    if not link():
        raise SystemExit("FAILED: nothing is attached")


def rules_are_known() -> bool:
    groups = [group for group in api("rules").get("groups", []) if group["file"] == RULES]
    return len(groups) == 1 and all(rule["health"] == "ok" for rule in groups[0]["rules"])


def about_attachments() -> dict[str, str]:
    """The state of the alerts that a detached program is about."""
    wanted = ("EbpfFleetAttachmentMissing", "EbpfFleetZombieAttachment")
    return {name: state for name, state, _summary in alerts() if name in wanted}


def detach() -> None:
    run("bpftool", "link", "detach", "id", str(link()))
    fires = "EbpfFleetAttachmentMissing"
    wait_for(lambda: about_attachments().get(fires) == "firing", f"{fires} fires")
    (missing,) = [
        labels for labels, value in told("attachment_in_place", stack="sockmap") if not value
    ]
    if (missing["hook"], Path(missing["target"]).name) != ("cgroup", GROUP.name):
        raise SystemExit(f"FAILED: it is about {missing}")


def quiet() -> None:
    wait_for(lambda: link() > 0 and not about_attachments(), "nothing is missing")


def remove() -> None:
    run("systemctl", "stop", *SERVICES)
    for path in FILES:
        shutil.copy2(KEPT / Path(path).name, path)
    shutil.rmtree(KEPT)
    shutil.rmtree(DATA, ignore_errors=True)
    GROUP.rmdir()
    left = [path for path in LEFTOVERS if Path(path).exists()]
    if left or programs():
        raise SystemExit(f"FAILED: something is left: {left}, {programs()}")


if __name__ == "__main__":
    actions = {
        "prepare": prepare,
        "verify": verify,
        "detach": detach,
        "quiet": quiet,
        "remove": remove,
    }
    actions[sys.argv[1]]()
