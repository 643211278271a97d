# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases on a host: stored, gone back to by name, told of; the store whole after whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import release_host
from release_host import Host, Made, Refused, wait_for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return release_host.build(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def host(tmp_path: Path, made: Made) -> Iterator[Host]:
    with release_host.running(tmp_path / "disk", made) as running:
        yield running


# --- deploy


def test_deploy_stores_and_runs_a_release_and_again_changes_nothing(host: Host) -> None:
    first = host.manifest("r1", 1)
    would = host.deploy(first, check=True)
    assert would["changed"]
    assert would["release"] == "r1"
    assert host.listing() == []
    assert host.version() is None

    did = host.deploy(first)
    assert did["actions"] == would["actions"]
    assert did["diff"]["before"] == would["diff"]["before"]
    assert did["diff"]["after"].keys() == would["diff"]["after"].keys()
    assert (did["release"], did["previous"], did["releases"]) == ("r1", None, ["r1"])
    assert host.version() == 1

    before = host.listing()
    for check in (False, True):
        again = host.deploy(first, check)
        assert not again["changed"]
        assert again["actions"] == []
    assert host.listing() == before


def test_the_store_is_for_root_alone(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    base = host.stored()
    for path in (base, *base.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o077 == 0, path
    assert (base / "current").readlink() == Path("releases/r1")


def test_objects_that_the_host_lacks_are_asked_for_before_anything_is_done(host: Host) -> None:
    request = {"do": "deploy", "manifest": host.manifest("r1", 1)}
    for check in (True, False):
        assert host.ask(request, check) == {"lacks": [host.digests["program"]]}
    assert host.listing() == []
    host.deploy(host.manifest("r1", 1))
    assert host.ask({**request, "manifest": host.manifest("r2", 2)})["changed"]
    assert host.version() == 2


def test_an_object_that_came_to_harm_is_asked_for_again(host: Host) -> None:
    first = host.manifest("r1", 1)
    host.deploy(first)
    stored = host.stored("objects", host.digests["program"])
    stored.write_bytes(stored.read_bytes()[:-7])
    assert host.ask({"do": "deploy", "manifest": first}) == {"lacks": [host.digests["program"]]}
    with pytest.raises(Refused, match=r"has other content; deploy the release again"):
        host.do("activate", "r1")
    assert host.deploy(first)["changed"]
    assert not host.do("activate", "r1")["changed"]


def test_a_release_is_named_by_its_content_when_nobody_names_it(host: Host) -> None:
    one, two = (host.deploy(host.manifest(None, version))["release"] for version in (1, 2))
    assert one.startswith("auto-")
    assert one != two
    assert host.deploy(host.manifest(None, 1))["release"] == one
    assert host.version() == 1


def test_a_stored_release_never_changes(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    before = host.listing()
    with pytest.raises(Refused, match="stored on this host with other content"):
        host.deploy(host.manifest("r1", 2))
    assert host.listing() == before
    assert host.version() == 1


def test_an_upgrade_keeps_the_map_and_its_data(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    pin = "/sys/fs/bpf/ebpf_fleet/web_maps/kept"
    key = ["key", "1", "0", "0", "0"]
    host.run("bpftool", "map", "update", "pinned", pin, *key, "value", "7", *["0"] * 7)
    number = host.bpftool("map", "show", "pinned", pin)["id"]
    host.deploy(host.manifest("r2", 2))
    assert host.bpftool("map", "show", "pinned", pin)["id"] == number
    assert host.bpftool("map", "lookup", "pinned", pin, *key)["formatted"]["value"] == 7


def test_what_fails_leaves_kernel_and_store_as_they_were(host: Host) -> None:
    with pytest.raises(Refused, match="the last lines of the log say why"):
        host.deploy(host.manifest("r1", 1, "rejected"))
    assert host.listing() == []
    host.deploy(host.manifest("r1", 1))
    before = host.listing()
    with pytest.raises(Refused):
        host.deploy(host.manifest("r2", 2, "rejected"))
    assert host.listing() == before
    assert host.version() == 1


def test_a_file_of_the_host_is_copied_into_the_release(host: Host) -> None:
    path = host.disk / "mine.o"
    shutil.copy(host.blobs / host.digests["program"], path)
    manifest = host.manifest("r1", 1)
    options = manifest["resources"][0]["bpf_prog"]
    options.update(object=str(path), remote_src=True)
    host.ask({"do": "deploy", "manifest": manifest})
    path.unlink()
    assert host.version() == 1
    assert not host.do("activate", "r1")["changed"]
    with pytest.raises(Refused, match="copy it to the host first"):
        host.ask({"do": "deploy", "manifest": manifest})


def test_a_source_of_the_host_is_compiled_into_the_release(host: Host) -> None:
    path = host.disk / "mine.c"
    path.write_text('#include "mine.h"\n')
    path.with_suffix(".h").write_text(release_host.PROGRAM)
    manifest = host.manifest("r1", 1)
    options = manifest["resources"][0]["bpf_prog"]
    options.update(object=None, source=str(path), compiler="clang", remote_src=True)
    assert host.ask({"do": "deploy", "manifest": manifest})["changed"]
    assert not host.ask({"do": "deploy", "manifest": manifest})["changed"]
    for name in (path, path.with_suffix(".h")):
        name.unlink()
    host.reboot()
    host.engine("replay")
    assert host.version() == 1


def test_drift_is_told_and_repaired(host: Host) -> None:
    first = host.manifest("r1", 1)
    host.deploy(first)
    assert host.status()["condition"] == "in_sync"
    host.run("bpftool", "link", "detach", "pinned", "/sys/fs/bpf/ebpf_fleet/web/link")
    told = host.status()
    assert told["condition"] == "drifted"
    assert any("attach" in action or "link" in action for action in told["actions"])
    assert host.engine("status", check=False).returncode == 3
    assert host.deploy(first)["changed"]
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"
    assert host.status()["predecessor"] is None


# --- the way back


def test_withdraw_leads_to_what_ran_before_and_only_once(host: Host) -> None:
    for number in (1, 2, 3):
        host.deploy(host.manifest(f"r{number}", number))
    assert not host.do("withdraw", "r2")["changed"]
    assert not host.do("withdraw", "never_heard_of")["changed"]
    assert host.version() == 3

    would = host.do("withdraw", "r3", check=True)
    assert (would["changed"], would["release"]) == (True, "r2")
    assert host.version() == 3
    did = host.do("withdraw", "r3")
    assert did["actions"] == would["actions"]
    assert host.version() == 2
    before = host.listing()
    assert not host.do("withdraw", "r3")["changed"]
    assert host.listing() == before

    assert host.do("withdraw", "r2")["release"] == "r1"
    assert host.version() == 1
    gone = host.do("withdraw", "r1")
    assert (gone["changed"], gone["release"]) == (True, None)
    assert host.version() is None
    assert host.status()["condition"] == "removed"
    assert not host.do("withdraw", "r1")["changed"]
    assert host.do("activate", "r3")["release"] == "r3"
    assert host.version() == 3


def test_a_deployment_of_an_older_release_remembers_what_it_replaced(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.deploy(host.manifest("r1", 1))
    assert host.version() == 1
    assert host.do("withdraw", "r1")["release"] == "r2"


def test_withdraw_works_when_the_withdrawn_release_is_damaged(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.stored("releases", "r2", "manifest.json").write_text("{")
    did = host.do("withdraw", "r2")
    assert did["release"] == "r1"
    assert any("what release r2 declared is not known" in warning for warning in did["warnings"])
    assert host.version() == 1


def test_withdraw_works_after_a_reboot(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.reboot()
    wait_for(lambda: host.version() is None)
    assert host.do("withdraw", "r2")["release"] == "r1"
    assert host.version() == 1


def test_withdraw_names_the_way_out_when_the_predecessor_is_gone(host: Host) -> None:
    for number in (1, 2, 3):
        host.deploy(host.manifest(f"r{number}", number))
    assert any("cannot be withdrawn" in warning for warning in host.do("forget", "r2")["warnings"])
    before = host.listing()
    with pytest.raises(Refused, match=r"is no longer stored; name the goal.*one of r1"):
        host.do("withdraw", "r3")
    assert host.listing() == before
    assert host.do("activate", "r1")["changed"]


def test_activate_names_what_is_stored(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    with pytest.raises(
        Refused, match=r"release r9 of stack web is not stored on this host; stored are: r1"
    ):
        host.do("activate", "r9")


def test_remove_leaves_nothing(host: Host) -> None:
    engine = host.install()
    host.deploy(host.manifest("r1", 1), engine=engine)
    host.deploy(host.manifest("r2", 2), engine=engine)
    would = host.do("remove", check=True)
    assert host.version() == 2
    assert host.do("remove")["actions"] == would["actions"]
    assert host.version() is None
    assert host.listing() == []
    assert not host.do("remove")["changed"]
    assert host.listing() == []
    assert host.ask({"do": "status"})["stacks"] == []


def test_forget_never_takes_what_runs(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    with pytest.raises(Refused, match="is what the host runs"):
        host.do("forget", "r2")
    assert host.do("forget", "r1")["releases"] == ["r2"]
    assert not host.do("forget", "r1")["changed"]
    assert not host.stored("releases", "r1").exists()


def test_keep_bounds_the_store_and_its_objects(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    other = host.digests["program"]
    for number in range(2, 8):
        host.deploy(host.manifest(f"r{number}", number), keep=3)
    assert sorted(path.name for path in host.stored("releases").iterdir()) == ["r5", "r6", "r7"]
    assert [path.name for path in host.stored("objects").iterdir()] == [other]
    host.deploy(host.manifest("r8", 8), keep=1)
    assert sorted(path.name for path in host.stored("releases").iterdir()) == ["r7", "r8"]
    host.deploy({**host.manifest("r9", 9), "resources": []}, keep=1)
    host.deploy({**host.manifest("r10", 9), "resources": [], "boot": "never"}, keep=1)
    assert list(host.stored("objects").iterdir()) == []
