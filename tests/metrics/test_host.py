# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of itself, with bpftool and its own files as witnesses; the tests go in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import world
import yaml
from world import RULES, bpftool, inside, play, scrape, value, values, wait_for

pytestmark = pytest.mark.usefixtures("host")

HOME = "/sys/fs/bpf/ebpf_fleet"
FILE = "/var/lib/prometheus/node-exporter/ebpf_fleet.prom"
PROMETHEUS = "/run/prometheus"
STATISTICS = Path("/proc/sys/kernel/bpf_stats_enabled")
TALK = """
import socket, threading
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", 9001))
listener.listen(1)
client = socket.create_connection(("127.0.0.1", 9001))
server, _address = listener.accept()
for _ in range(64):
    client.sendall(b"x" * 1000)
    left = 1000
    while left:
        left -= len(server.recv(left))
    server.sendall(b"y")
    client.recv(1)
"""


def talk() -> None:
    """Let two sockets of an accelerated control group talk to each other."""
    into = "echo $$ >/sys/fs/cgroup/web/cgroup.procs; exec python3 -"
    inside("sh", "-c", into, stdin=TALK)


def counted(pin: str) -> dict[str, int]:
    """Sums over all CPUs of the struct in a per-CPU array's first entry, by bpftool."""
    sums: dict[str, int] = {}
    for each in bpftool("map", "dump", "pinned", pin)[0]["formatted"]["values"]:
        for name, number in each["value"].items():
            sums[name] = sums.get(name, 0) + number
    return sums


def is_pinned(program: dict[str, Any]) -> bool:
    return any(path.startswith(HOME) for path in program.get("pinned", []))


def test_it_serves_on_loopback_alone() -> None:
    listening = inside("ss", "-Hltn", "sport = :9435").split()
    assert listening[3] == "127.0.0.1:9435"
    assert listening.count("LISTEN") == 1


def test_promtool_takes_it() -> None:
    text = inside("curl", "-sSf", world.URL)
    inside("promtool", "check", "metrics", stdin=text)
    assert world.parse(text)


def test_what_it_tells_is_documented() -> None:
    written = (world.REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    wait_for(lambda: values(scrape(), "stack_info"), "what the engine says")
    names = {name[len("ebpf_fleet_") :] for name, _labels in scrape() if "process_" not in name}
    assert {name for name in names if f"`{name}`" not in written} == set()


def test_it_tells_the_programs_that_the_kernel_has() -> None:
    found = scrape()
    told = {
        int(dict(labels)["id"]): dict(labels)
        for name, labels in found
        if name == "ebpf_fleet_program_info"
    }
    pinned = {each["id"]: each for each in bpftool("-f", "prog", "show") if is_pinned(each)}
    assert pinned.keys() <= told.keys()  # hosts of other labs share the kernel
    for number, program in pinned.items():
        assert told[number]["tag"] == program["tag"]
        assert told[number]["type"] == program["type"]
    assert {told[number]["release"] for number in pinned} == {"2026.1", "2026.2"}


def test_it_counts_runs_while_statistics_are_on() -> None:
    before = STATISTICS.read_text(encoding="ascii")
    number = bpftool("prog", "show", "pinned", f"{HOME}/sockmap/sockmap_establish")["id"]
    wait_for(
        lambda: values(scrape(), "program_statistics_enabled") == [float(before)], "the switch"
    )
    assert bool(values(scrape(), "program_runs_total")) == bool(int(before))
    try:
        STATISTICS.write_text("1", encoding="ascii")
        talk()
        runs = bpftool("prog", "show", "id", str(number))["run_cnt"]
        assert runs > 0
        told = "program_runs_total"
        wait_for(lambda: values(scrape(), told, id=str(number)) == [runs], "the runs")
        assert value(scrape(), "program_run_seconds_total", id=str(number)) > 0
    finally:
        STATISTICS.write_text(before, encoding="ascii")


def test_it_counts_what_maps_hold() -> None:
    pin = f"{HOME}/sockmap/maps/policy_cidrs"
    number = bpftool("map", "show", "pinned", pin)["id"]
    for last in range(50):
        key = f"128 0 0 0 32 1 13 184 {'0 ' * 11}{last}".split()
        inside("bpftool", "map", "update", "pinned", pin, "key", *key, "value", "1")
    held = len(bpftool("map", "dump", "pinned", pin))
    wait_for(lambda: value(scrape(), "map_entries", id=str(number)) == held, f"{held} entries")
    found = scrape()
    assert value(found, "map_max_entries", id=str(number)) == 4096
    assert value(found, "map_fill_ratio", id=str(number)) == held / 4096


def test_it_tells_what_the_accelerator_counted() -> None:
    before = scrape()
    talk()
    seen = counted(f"{HOME}/sockmap/maps/counters")
    assert seen["redirected_bytes"] >= 64000

    def told() -> bool:
        sent = values(scrape(), "accelerator_sent_bytes_total", path="redirected")
        return sent == [seen["redirected_bytes"]]

    wait_for(told, "the bytes that were redirected")
    found = scrape()
    assert value(found, "accelerator_sockets_admitted_total") == seen["admitted"]
    assert value(found, "accelerator_directions_paired_total") == seen["paired"] > 0
    assert value(before, "accelerator_directions_paired_total") < seen["paired"]
    for reason in ("no_peer", "backlog", "one_way"):
        told_of = value(found, "accelerator_directions_fallback_total", reason=reason)
        assert told_of == seen[reason]


def test_it_tells_what_the_balancer_did() -> None:
    service = {"balancer": "xdp_lb", "service": "shop"}
    up, down = "10.99.0.2:8081", "10.99.0.2:8082"

    def checked() -> bool:
        found = scrape()
        return (
            value(found, "balancer_backend_health", backend=up, health="up", **service) == 1
            and value(found, "balancer_backend_health", backend=down, health="down", **service) == 1
        )

    wait_for(checked, "what the checks say")
    for dummy in range(3):
        inside(
            "ip", "netns", "exec", "servers", "curl", "-sSf", "-o/dev/null", "http://192.0.2.10/"
        )
    wait_for(
        lambda: value(scrape(), "balancer_backend_connections_total", backend=up, **service) == 3,
        "three connections",
    )
    found = scrape()
    assert value(found, "balancer_backend_connections_total", backend=down, **service) == 0
    assert value(found, "balancer_backend_packets_total", backend=up, **service) >= 9
    assert value(found, "balancer_backend_bytes_total", backend=up, **service) > 500
    assert value(found, "balancer_backend_weight", backend="10.99.0.2:8083", **service) == 0
    assert value(found, "balancer_backends", balancer="xdp_lb") == 3
    assert value(found, "balancer_backends_limit", balancer="xdp_lb") == 64
    place = {"place": "192.0.2.10:80/tcp", "forwarding": "nat"}
    assert value(found, "balancer_service_info", **service, **place) == 1


def test_it_tells_the_releases() -> None:
    wait_for(lambda: values(scrape(), "stack_info"), "what the engine says")
    found = scrape()
    for stack, release in (("sockmap", "2026.1"), ("xdp_lb", "2026.2")):
        assert value(found, "stack_info", stack=stack, release=release, running=release) == 1
        assert value(found, "stack_releases", stack=stack) == 1
        assert len(values(found, "stack_condition", stack=stack)) == 5


def test_inspect_says_what_bpftool_would() -> None:
    _changed, printed = play("inspect", "-e", "inspect_hosts=all")
    lines = [line for line in map(world.plays.said, printed.splitlines()) if line]
    for each in bpftool("-f", "prog", "show"):
        if is_pinned(each):
            assert any(line.split()[:1] == [str(each["id"])] for line in lines), each
    assert any("sockmap_establi" in line and "cgroup_sock_ops" in line for line in lines)
    assert any("outer" in line and "generic" in line for line in lines)


def prometheus() -> list[dict[str, Any]]:
    answer = inside("curl", "-sS", "http://127.0.0.1:9090/api/v1/alerts", check=False)
    return list(json.loads(answer)["data"]["alerts"]) if answer.startswith("{") else []


def fires(alert: str, **labels: str) -> bool:
    return any(
        each["state"] == "firing"
        and each["labels"]["alertname"] == alert
        and labels.items() <= each["labels"].items()
        for each in prometheus()
    )


def test_prometheus_scrapes_it_and_alerts(tmp_path: Path) -> None:
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "1s"
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s", "scrape_timeout": "2s"},
        "rule_files": [f"{PROMETHEUS}/rules.yml"],
        "scrape_configs": [
            {"job_name": "ebpf-fleet", "static_configs": [{"targets": ["127.0.0.1:9435"]}]}
        ],
    }
    inside("mkdir", "-p", PROMETHEUS)
    for name, content in (("rules.yml", rules), ("prometheus.yml", config)):
        inside("tee", f"{PROMETHEUS}/{name}", stdin=json.dumps(content))
    serve = (
        f"exec prometheus --config.file={PROMETHEUS}/prometheus.yml --storage.tsdb.path={PROMETHEUS}/data"
        f" --web.listen-address=127.0.0.1:9090 --log.level=warn >{PROMETHEUS}/log 2>&1 &"
    )
    inside("setsid", "sh", "-c", serve)
    down = {"service": "shop", "backend": "10.99.0.2:8082"}
    wait_for(lambda: fires("EbpfFleetBackendDown", **down), "the alert on a backend")
    gone = {"hook": "cgroup", "target": "api", "stack": "sockmap"}
    assert not fires("EbpfFleetAttachmentMissing", **gone)
    zombies = {"owner": "ours", "condition": "zombie"}
    before = value(scrape(), "attachments", **zombies)

    inside("rmdir", "/sys/fs/cgroup/api")
    wait_for(lambda: fires("EbpfFleetAttachmentMissing", **gone), "the alert on an attachment")
    wait_for(lambda: value(scrape(), "attachments", **zombies) > before, "a zombie")
    wait_for(lambda: fires("EbpfFleetZombieAttachment", owner="ours"), "the alert on a zombie")
    assert not fires("EbpfFleetAttachmentMissing", target="web")


def test_a_second_run_changes_nothing() -> None:
    assert play("metrics.yml")[0] == 0


def test_it_moves_to_a_file_for_node_exporter() -> None:
    play("metrics.yml", "-e", "metrics_through=textfile", "-e", "metrics_interval=1")
    wait_for(lambda: inside("ls", FILE, check=False), "the file")
    text = inside("cat", FILE)
    inside("promtool", "check", "metrics", stdin=text)
    found = world.parse(text)
    assert value(found, "attachment_in_place", target="web") == 1
    assert inside("stat", "-c", "%a", FILE).strip() == "644"
    assert not inside("ss", "-Hltn", "sport = :9435")


def test_it_goes_without_a_trace() -> None:
    play("metrics.yml", "-e", "metrics_state=absent")
    named = ["-name", "ebpf-fleet-metrics*", "-o", "-name", "ebpf_fleet.prom", "-o"]
    named += ["-name", "*ebpf-fleet-metrics"]
    assert not inside("find", "/etc", "/run", "/var/lib", "/var/log", *named)
    assert not inside("pgrep", "-f", "ebpf-fleet.* metrics", check=False)
    assert play("metrics.yml", "-e", "metrics_state=absent")[0] == 0
