# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roll-outs over twelve hosts: what stops, what goes back and what is said, host by host.

The tests build on each other, as days in the life of a fleet do. The witness is bpftool on each host.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from fleet import (
    HERE,
    HOSTS,
    NAMES,
    REPOSITORY,
    command,
    declare,
    environment,
    expect,
    fabric,
    inside,
    kill_sshd,
    releases,
    run,
    see,
    start_sshd,
)

# The batches of the inventory's `rollout`.
CANARY, SECOND, THIRD, REST = NAMES[:1], NAMES[1:4], NAMES[4:8], NAMES[8:]
CONFIRM_SECONDS = 60

SICK = """
- name: The site's own proof
  ansible.builtin.assert:
    that: inventory_hostname != 'app05'
    fail_msg: the shop does not answer
"""

# The controller has changed the host, and the connection is gone before the gate has passed.
LOST = """
- name: sshd dies, and with it every connection
  ansible.builtin.shell: nohup setsid sh -c 'sleep 0.5; killall -9 sshd' >/dev/null 2>&1 &
  changed_when: false
  when: inventory_hostname == 'app06'

- name: It has died
  ansible.builtin.pause:
    seconds: 5

- name: The host answers
  ansible.builtin.ping:
"""


REPOSITORY_OF_THE_FLEET = """
set -e
git init -q /srv/fleet
cd /srv/fleet
cp -r {inventory} inventory
mkdir inventory/group_vars
echo 'sockmap_accelerator_ports: [9003]' > inventory/group_vars/sockmap_accelerator.yml
cat > site.yml <<'END'
- name: What this host's groups declare
  ansible.builtin.import_playbook: ebpf.fleet.site
END
git add -A
git -c user.name=fleet -c user.email=fleet@example.com commit -q -m 'The third release'
"""


def probe(directory: Path, text: str) -> list[str]:
    path = directory / "probe.yml"
    path.write_text(text, encoding="ascii")
    return ["-e", f"rollout_probe={path}"]


def test_a_first_roll_out_reaches_every_host() -> None:
    done = run("site", *declare("v1"))
    assert done.status == 0, done.output
    assert releases() == expect((NAMES, "v1"))
    assert done.table("host", "before", "now") == {name: ["-", "v1", "new"] for name in NAMES}


def test_a_second_one_changes_nothing() -> None:
    before = {host.name: see(host) for host in HOSTS}
    done = run("site", *declare("v1"))
    assert done.status == 0, done.output
    assert done.changed == {"localhost": 0, **dict.fromkeys(NAMES, 0)}
    assert {host.name: see(host) for host in HOSTS} == before


def test_a_preview_says_what_would_change_and_changes_nothing() -> None:
    before = {host.name: see(host) for host in HOSTS}
    done = run("site", "--check", "--diff", "--limit", "app01:app02", *declare("v2"))
    assert done.status == 0, done.output
    assert "9002" in done.output
    assert {host.name: see(host) for host in HOSTS} == before


def test_one_host_whose_kernel_refuses_stops_it_before_anything_changes(
    refused_object: Path, extra: Path
) -> None:
    before = {host.name: see(host) for host in HOSTS}
    variables = {"sockmap_accelerator_object": str(refused_object)}
    extra.write_text(json.dumps({"all": {"hosts": {"app03": variables}}}), encoding="ascii")
    done = run("site", "-i", str(extra), *declare("v2"))
    assert done.status == 2
    assert {host.name: see(host) for host in HOSTS} == before
    table = done.table("host", "has", "is")
    assert {name: cells[1] for name, cells in table.items() if name != "app03"} == {
        name: "fit" for name in NAMES if name != "app03"
    }
    assert table["app03"][1].startswith("not fit: ")
    assert "Nothing was rolled out" in done.output


def test_a_gate_that_fails_takes_its_batch_back_and_stops(tmp_path: Path) -> None:
    before = {host.name: see(host) for host in HOSTS}
    done = run("site", *declare("v2"), *probe(tmp_path, SICK))
    assert done.status == 2
    assert releases() == expect((CANARY + SECOND, "v2"), (THIRD + REST, "v1"))
    untouched = {host.name: see(host) for host in HOSTS if host.name in REST}
    assert untouched == {name: before[name] for name in REST}
    table = done.table("host", "before", "now")
    for name in CANARY + SECOND:
        assert table[name] == ["v1", "v2", "new"]
    assert table["app05"][:2] == ["v1", "v1"]
    assert "the shop does not answer" in table["app05"][2]
    for name in THIRD[1:]:
        assert table[name] == ["v1", "v1", "taken back with its batch"]
    for name in REST:
        assert table[name] == ["v1", "v1", "not begun"]


def test_a_host_that_is_lost_in_mid_batch_goes_back_by_itself(tmp_path: Path) -> None:
    lost = HOSTS[5]
    begin = time.monotonic()
    options = ["-e", f"rollout_confirm_timeout={CONFIRM_SECONDS}"]
    done = run("site", *declare("v2"), *options, *probe(tmp_path, LOST))
    try:
        assert done.status in (2, 4)
        others = [name for name in NAMES if name != lost.name]
        now = {host.name: see(host).release for host in HOSTS if host is not lost}
        earlier = CANARY + SECOND
        assert now == {name: "v2" if name in earlier else "v1" for name in others}
        table = done.table("host", "before", "now")
        assert table[lost.name][:2] == ["v1", "?"]
        assert "goes back by itself" in table[lost.name][2]
        for name in earlier:
            assert table[name] == ["v2", "v2", "as declared"]
        for name in (*THIRD[:1], *THIRD[2:]):
            assert table[name] == ["v1", "v1", "taken back with its batch"]
        for name in REST:
            assert table[name] == ["v1", "v1", "not begun"]
        # Nobody can reach it, and nobody confirms.
        while see(lost).current != "v1":  # which is changed last
            assert time.monotonic() - begin < 6 * CONFIRM_SECONDS, see(lost)
            time.sleep(1)
        assert see(lost).release == "v1"
    finally:
        kill_sshd(lost)
        start_sshd(lost)


def test_rollback_by_name_twice() -> None:
    done = run("site", *declare("v2"))
    assert done.status == 0, done.output
    assert releases() == expect((NAMES, "v2"))
    back = run("rollback", "-e", "stack=sockmap", "-e", "release=v2")
    assert back.status == 0, back.output
    assert releases() == expect((NAMES, "v1"))
    assert back.table("host", "before", "now") == {name: ["v2", "v1"] for name in NAMES}
    again = run("rollback", "-e", "stack=sockmap", "-e", "release=v2")
    assert again.status == 0, again.output
    assert not any(again.changed.values())
    assert releases() == expect((NAMES, "v1"))


def test_rollback_to_a_release_by_name() -> None:
    nowhere = run("rollback", "-e", "stack=sockmap", "-e", "to=v9")
    assert nowhere.status == 2
    assert "no release v9 of sockmap is stored" in nowhere.output
    assert releases() == expect((NAMES, "v1"))
    forth = run("rollback", "-e", "stack=sockmap", "-e", "to=v2", "--limit", "app01:app02")
    assert forth.status == 0, forth.output
    assert releases() == expect((NAMES[:2], "v2"), (NAMES[2:], "v1"))


def test_rollback_asks_what_to_go_back_to() -> None:
    asked = run("rollback")
    assert asked.status == 2
    for form in ("release=RELEASE", "to=RELEASE", "to=none"):
        assert form in asked.output
    assert releases() == expect((NAMES[:2], "v2"), (NAMES[2:], "v1"))


def test_drift_is_told_by_its_status_and_repaired(tmp_path: Path) -> None:
    clean = run("drift", "--check", "-e", f"drift_json={tmp_path}/drift.json")
    assert clean.status == 0, clean.output
    assert not any(clean.changed.values())
    found = json.loads((tmp_path / "drift.json").read_text(encoding="utf-8"))
    assert [one for one in found if one["state"] not in ("in sync", "foreign")] == []
    assert {one["host"] for one in found} == set(NAMES)

    by_hand = see(HOSTS[6])
    inside_detach(6)
    drifted = run("drift")
    assert drifted.status == 2
    table = drifted.table("host", "what", "state")
    assert "app07" in drifted.output.split("Not in sync: ")[1].splitlines()[0]
    assert table["app07"][1] == "drifted"
    assert see(HOSTS[6]).programs == ()

    repaired = run("site", *declare("v1"), "--limit", "app07")
    assert repaired.status == 0, repaired.output
    assert see(HOSTS[6]) == by_hand
    assert run("drift", "--limit", "app07").status == 0


def inside_detach(number: int) -> None:
    """Somebody takes the program off the control group by hand."""
    host = HOSTS[number]
    for pin in inside(host, "sh", "-c", "ls -d /sys/fs/bpf/ebpf_fleet/sockmap/cgroups/*").split():
        inside(host, "rm", pin)


def test_drift_says_which_hosts_cannot_be_asked() -> None:
    gone = HOSTS[7]
    kill_sshd(gone)
    try:
        done = run("drift")
        assert done.status == 2
        assert done.table("host", "what", "state")["app08"][:2] == ["host", "unreachable"]
        assert "app08" in done.output.split("Not in sync: ")[1].splitlines()[0]
    finally:
        start_sshd(gone)


def test_two_controllers_at_once_on_one_host() -> None:
    """One after the other: the host's lock. Whoever is last has its release, whole."""
    running = [
        subprocess.Popen(
            command("site", "--limit", "app12", *declare(release)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        for release in ("v3", "v4")
    ]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    statuses = [process.returncode for process in running]
    now = see(HOSTS[11]).release
    assert now in ("v3", "v4"), outputs
    assert 0 in statuses, outputs
    assert "Traceback" not in "".join(outputs)
    for status, output in zip(statuses, outputs):
        if status:
            assert "app12" in output
    assert fabric.ssh(HOSTS[11], "ls", "/var/lib/ebpf-fleet/sockmap/releases").stdout.split()


def test_a_host_converges_itself_from_a_git_repository() -> None:
    host = HOSTS[10]
    fabric.ssh(host, "sh", stdin=REPOSITORY_OF_THE_FLEET.format(inventory=HERE / "inventory"))
    words = [
        f"ANSIBLE_COLLECTIONS_PATH={REPOSITORY / '.cache/collections'}",
        f"PATH={Path(sys.executable).parent}:$PATH",
        f"ansible-pull -U /srv/fleet -d /root/pulled -i inventory --limit {host.name}",
        "-e ansible_connection=local -e sockmap_accelerator_release=v3 site.yml",
    ]
    for changed in (True, False):
        before = see(host)
        done = fabric.ssh(host, " ".join(words), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert see(host).release == "v3"
        assert (see(host) != before) == changed


def test_everything_is_taken_away() -> None:
    done = run("rollback", "-e", "to=none")
    assert done.status == 0, done.output
    assert releases() == expect((NAMES, ""))
    again = run("rollback", "-e", "to=none")
    assert again.status == 0, again.output
    assert not any(again.changed.values())
    assert run("drift").status == 2  # the group declares what no host has
