# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot: an empty bpffs in another mount and network namespace, on the same disk, and what the replay makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import release_host
from release_host import COMMAND, Host, Made, resource, wait_for

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return release_host.build(tmp_path_factory.mktemp("made"))


@pytest.fixture
def host(tmp_path: Path, made: Made) -> Iterator[Host]:
    with release_host.running(tmp_path / "disk", made) as running:
        yield running


def reboot(host: Host) -> None:
    host.reboot()
    wait_for(lambda: host.version() is None)


def test_a_boot_brings_back_what_ran_and_again_changes_nothing(host: Host) -> None:
    host.deploy(host.manifest("r1", 1), engine=host.install())
    host.deploy(host.manifest("r2", 2), engine=host.install())
    before = host.listing()
    reboot(host)
    assert host.status()["condition"] == "drifted"
    done = host.run(COMMAND, "replay", "--phase", "early")
    assert "stack web: now runs r2" in done.stderr
    assert host.version() == 2
    assert host.status()["condition"] == "in_sync"
    assert host.listing() == before
    assert "stack web: runs r2" in host.run(COMMAND, "replay").stderr
    assert host.listing() == before
    assert not host.deploy(host.manifest("r2", 2))["changed"]


def test_a_boot_mounts_the_bpffs_that_nobody_mounted(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.bpffs = False
    reboot(host)
    host.engine("replay")
    assert host.version() == 1
    assert host.run("stat", "--format=%a %T", "--file-system", "/sys/fs/bpf").returncode == 0
    assert "bpf" in host.run("findmnt", "--noheadings", "--output=FSTYPE", "/sys/fs/bpf").stdout


def test_a_boot_makes_the_control_group_that_a_service_will_find(host: Host) -> None:
    group = host.group / "later.slice" / "web.service"
    group.mkdir(parents=True)
    host.group = group
    host.deploy(host.manifest("r1", 1))
    host.halt()
    time.sleep(0.2)
    group.rmdir()
    group.parent.rmdir()
    host.boot()
    host.engine("replay")
    assert host.version() == 1


def test_each_phase_replays_its_stacks(host: Host) -> None:
    host.deploy(host.manifest("r1", 1, boot="network"))
    reboot(host)
    host.engine("replay", "--phase", "early")
    assert host.version() is None
    host.engine("replay", "--phase", "network")
    assert host.version() == 1
    host.deploy(host.manifest("r2", 2, boot="never"))
    reboot(host)
    host.engine("replay")
    assert host.version() is None
    host.engine("replay", "web")
    assert host.version() == 2


def test_a_boot_waits_for_an_interface(host: Host) -> None:
    host.run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")
    manifest = {**host.manifest("r1", 1), "boot": "network"}
    manifest["resources"] = [
        resource(
            "bpf_prog",
            object=f"sha256:{host.digests['program']}",
            pin_dir="web",
            programs=["pass"],
        ),
        resource("xdp_attach", interface="late0", prog="web/pass", link="web/xdp", mode="generic"),
    ]
    host.deploy(manifest)
    reboot(host)

    def come() -> None:
        time.sleep(1.5)
        host.run("ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1")

    driver = threading.Thread(target=come)
    driver.start()
    host.engine("replay", "--phase", "network")
    driver.join()
    assert "xdp" in host.run("ip", "-d", "link", "show", "late0").stdout


# --- a kernel that rejects


def break_release(host: Host, release: str) -> None:
    """The release as a kernel would see it that rejects its object: another one, with the matching record."""
    code = """
import json, sys
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import keep, manifest, record, store
document = json.load(sys.stdin)
bad = manifest.parse(document["manifest"])
state = store.load("web")
old = state.record(bad.release)
new = record.Record(bad.digest, old.created, tuple(bad.objects), old.by, old.predecessor, old.activated)
for sha in bad.objects:
    keep.put_object("web", sha, document["blobs"] + "/" + sha)
keep.put_release(bad, new)
"""
    document = {
        "manifest": host.manifest(release, 9, "rejected"),
        "blobs": str(host.blobs),
    }
    path = f"PYTHONPATH={PROJECT / '.cache/collections'}"
    host.run("env", path, sys.executable, "-c", code, text=json.dumps(document))


def test_a_release_that_no_longer_loads_is_replaced_by_the_newest_that_does(host: Host) -> None:
    for number in (1, 2, 3):
        host.deploy(host.manifest(f"r{number}", number))
    break_release(host, "r3")
    reboot(host)
    done = host.engine("replay")
    assert "release r3 does not load on Linux" in done.stderr
    assert "release r2 runs instead" in done.stderr
    assert host.version() == 2
    told = host.status()
    assert (told["condition"], told["active"], told["running"]) == ("fallback", "r3", "r2")
    assert told["fallback"]["kernel"] == os.uname().release
    assert told["reason"]
    before = host.listing()
    host.engine("replay")
    assert host.version() == 2
    assert host.listing() == before

    assert host.do("withdraw", "r3")["release"] == "r2"
    told = host.status()
    assert (told["condition"], told["active"], told["fallback"]) == ("in_sync", "r2", None)


def test_a_release_that_nobody_confirmed_replaces_none(host: Host) -> None:
    for number in (1, 2, 3):
        host.deploy(host.manifest(f"r{number}", number))
    host.do("activate", "r2")
    path = host.stored("releases", "r3", "record.json")
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "reverted": "2026-01-01T00:00:00Z"})
    )
    break_release(host, "r2")
    reboot(host)
    assert "release r1 runs instead" in host.engine("replay").stderr
    assert host.version() == 1


def test_a_deployment_ends_a_fallback(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    break_release(host, "r2")
    reboot(host)
    host.engine("replay")
    assert host.version() == 1
    assert host.deploy(host.manifest("r3", 3))["release"] == "r3"
    assert host.version() == 3
    assert host.status()["condition"] == "in_sync"


def test_what_a_boot_fell_back_to_can_be_withdrawn_too(host: Host) -> None:
    for number in (1, 2, 3):
        host.deploy(host.manifest(f"r{number}", number))
    break_release(host, "r3")
    reboot(host)
    host.engine("replay")
    assert host.version() == 2
    assert host.do("withdraw", "r2")["release"] == "r1"
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"
    assert not host.do("withdraw", "r2")["changed"]


def test_when_nothing_loads_the_boot_says_so(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    break_release(host, "r1")
    reboot(host)
    done = host.engine("replay", check=False)
    assert done.returncode == 1
    assert "no stored release loads" in done.stderr
    told = host.status()
    assert (told["condition"], told["running"]) == ("fallback", None)


def test_a_killed_change_boots_into_what_was_before(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.do("withdraw", "r2")
    document: dict[str, Any] = {
        "release": "r2",
        "previous": "r1",
        "phase": "applying",
        "token": "0",
        "boot": "another",
        "due": None,
        "confirm_by": None,
    }
    host.stored("pending.json").write_text(json.dumps(document))
    reboot(host)
    assert "the change to r2 was never finished: back to r1" in host.engine("replay").stderr
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"


def test_one_bad_stack_does_not_keep_the_others_from_booting(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    bad = host.stored().with_name("bad")
    bad.mkdir()
    (bad / "pending.json").write_text("{")
    reboot(host)
    done = host.engine("replay", check=False)
    assert done.returncode == 1
    assert "stack bad:" in done.stderr
    assert host.version() == 1


# --- what a boot runs


def test_the_command_is_the_engine_and_tells_itself(host: Host) -> None:
    host.deploy(host.manifest("r1", 1), engine=host.install())
    host.deploy(host.manifest("r2", 2))
    assert "withdraw" in host.run(COMMAND, "--help").stdout
    assert host.run(COMMAND, "status").stdout.startswith("web: in_sync, runs r2\n")
    assert "would make release r1" in host.run(COMMAND, "--check", "withdraw", "web", "r2").stdout
    assert "stack web runs r1" in host.run(COMMAND, "withdraw", "web", "r2").stdout
    assert host.version() == 1
    wrong = host.run(COMMAND, "activate", "web", "r9", check=False)
    assert wrong.returncode == 1
    assert "is not stored on this host; stored are: r2, r1" in wrong.stderr
    assert host.run(COMMAND, "nonsense", check=False).returncode == 2
    assert host.run(COMMAND, "replay", "nothing", check=False).returncode == 1
    host.run(COMMAND, "remove", "web")
    assert host.version() is None
    assert host.listing() == []


def test_an_engine_is_switched_with_the_release_and_the_old_one_goes(host: Host) -> None:
    sha = host.install()
    engines = host.stored().with_name("engine")
    assert not (engines / "current").is_symlink()
    (engines / ("0" * 64)).mkdir()
    did = host.deploy(host.manifest("r1", 1), engine=sha)
    assert f"install engine {sha[:12]}" in did["actions"]
    assert {path.name for path in engines.iterdir()} == {sha, "current"}
    assert not host.deploy(host.manifest("r1", 1), engine=sha)["changed"]
    assert list((engines / sha).rglob("*.pyc"))


UNITS = Path("etc/systemd/system")


def linked(host: Host, phase: str, target: str) -> bool:
    unit = host.disk / UNITS / f"ebpf-fleet-{phase}.service"
    link = host.disk / UNITS / f"{target}.wants" / unit.name
    if not link.is_symlink():
        assert not unit.exists()
        return False
    assert link.readlink() == Path("/") / UNITS / unit.name
    return unit.is_file()


def test_units_are_there_while_a_stack_needs_them(host: Host) -> None:
    host.systemd = True
    host.reboot()
    engine = host.install()
    would = host.deploy(host.manifest("r1", 1), check=True, engine=engine)
    assert "install /etc/systemd/system/ebpf-fleet-early.service" in would["actions"]
    did = host.deploy(host.manifest("r1", 1), engine=engine)
    assert did["actions"] == would["actions"]
    assert linked(host, "early", "sysinit.target")
    assert not linked(host, "network", "multi-user.target")
    units = [str(path) for path in (host.disk / UNITS).glob("*.service")]
    checked = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if "ebpf-fleet" in line]
    assert [line for line in complaints if "is not executable" not in line] == []

    (host.disk / UNITS / "ebpf-fleet-early.service").unlink()
    again = host.deploy(host.manifest("r1", 1), engine=engine)
    assert again["actions"] == ["install /etc/systemd/system/ebpf-fleet-early.service"]
    assert linked(host, "early", "sysinit.target")

    host.deploy(host.manifest("r2", 1, boot="network"), engine=engine)
    assert not linked(host, "early", "sysinit.target")
    assert linked(host, "network", "multi-user.target")
    before = host.listing()
    host.do("withdraw", "r2")
    assert linked(host, "early", "sysinit.target")
    host.do("activate", "r2")
    assert [line for line in before if "units" in line] == [
        line for line in host.listing() if "units" in line
    ]
    host.do("remove")
    assert [line for line in host.listing() if ".service" in line or "sbin" in line] == []
