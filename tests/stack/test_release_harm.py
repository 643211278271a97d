# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases where something went wrong: half a change, a damaged store, requests that make no sense."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import release_host
from release_host import STORE, Host, Made, Refused, resource


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return release_host.build(tmp_path_factory.mktemp("objects"))


@pytest.fixture
def host(tmp_path: Path, made: Made) -> Iterator[Host]:
    with release_host.running(tmp_path / "disk", made) as running:
        yield running


def leave_half(host: Host, release: str, back: str | None, phase: str = "applying") -> None:
    """What a run leaves that was killed between its first word and its last step."""
    document = {
        "release": release,
        "previous": back,
        "phase": phase,
        "token": "0",
        "boot": (host.disk / "boot_id").read_text().strip(),
        "due": None,
        "confirm_by": None,
    }
    host.stored("pending.json").write_text(json.dumps(document))


def test_a_deployment_that_was_killed_is_told_and_finished(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.do("withdraw", "r2")
    leave_half(host, "r2", "r1")
    assert host.status()["condition"] == "unfinished"
    did = host.deploy(host.manifest("r2", 2))
    assert any("was begun and never finished" in warning for warning in did["warnings"])
    assert host.version() == 2
    assert host.status()["condition"] == "in_sync"
    assert host.do("withdraw", "r2")["release"] == "r1"


def test_a_deployment_that_was_killed_is_withdrawn(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.stored("current").unlink()
    host.stored("current").symlink_to("releases/r1")  # everything was loaded, nothing was switched
    leave_half(host, "r2", "r1")
    did = host.do("withdraw", "r2")
    assert (did["changed"], did["release"]) == (True, "r1")
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"
    assert not host.do("withdraw", "r2")["changed"]


def test_a_withdrawal_that_was_killed_is_withdrawn_again(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    leave_half(host, "r1", "r1")
    assert host.do("withdraw", "r2")["release"] == "r1"
    assert host.version() == 1
    leave_half(host, "r1", "r1")  # killed at its very end
    assert host.do("withdraw", "r2")["changed"]
    assert host.status()["condition"] == "in_sync"
    assert not host.do("withdraw", "r2")["changed"]


def test_what_a_killed_run_left_in_the_store_goes(host: Host) -> None:
    first = host.manifest("r1", 1)
    host.deploy(first)
    before = host.listing()
    host.stored("releases", "r2").mkdir()
    host.stored("releases", "r2", "record.json.next").write_text("{")
    host.stored("objects", "0" * 64).write_text("")
    host.stored("current.next").symlink_to("releases/r2")
    shutil.copytree(host.stored(), host.stored().with_name("web.gone"), symlinks=True)
    assert host.status()["condition"] == "unfinished"
    assert host.deploy(first, check=True)["changed"]
    assert host.deploy(first)["changed"]
    assert host.listing() == before
    assert not host.deploy(first)["changed"]


def test_a_boot_and_a_withdrawal_remove_what_a_killed_run_left(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    before = host.listing()
    left = host.stored("releases", "r1", "record.json.next")
    left.write_text("{")
    host.engine("replay")
    assert host.listing() == before
    left.write_text("{")
    assert host.do("withdraw", "r0", check=True)["changed"]
    assert host.do("withdraw", "r0")["actions"] == [
        f"remove leftover {STORE}/web/releases/r1/{left.name}"
    ]
    assert host.listing() == before
    assert not host.do("withdraw", "r0")["changed"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pending.json", ""),
        ("pending.json", "[]"),
        ("pending.json", "{}"),
        ("pending.json", '{"release": 7}'),
        ("fallback.json", "\x00\xff"),
        ("releases/r2/record.json", "{"),
        ("releases/r2/record.json", '{"digest": "0", "created": 7}'),
        ("releases/r2/manifest.json", ""),
        ("releases/r2/manifest.json", '{"layout": 2}'),
        ("releases/r2/manifest.json", '{"layout": 1, "name": "web", "resources": []}'),
    ],
)
def test_a_damaged_file_is_named_and_no_traceback(host: Host, name: str, content: str) -> None:
    host.deploy(host.manifest("r1", 1))
    host.deploy(host.manifest("r2", 2))
    host.stored(*name.split("/")).write_bytes(content.encode("latin-1"))
    told = host.status()
    assert told["condition"] != "in_sync", told
    assert name.rpartition("/")[2] in told["reason"] or "manifest" in told["reason"]
    for what, release in (("activate", "r2"), ("withdraw", "r2"), ("activate", "r1")):
        with suppress(Refused):
            host.do(what, release)
    host.engine("status", check=False)
    host.engine("replay", check=False)


def test_current_that_leads_elsewhere_is_named(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    for make in (
        lambda path: path.symlink_to("../../../etc"),
        lambda path: path.write_text("r1"),
        lambda path: path.symlink_to("releases/r7"),
    ):
        host.stored("current").unlink()
        make(host.stored("current"))
        assert host.status()["condition"] != "in_sync"
        with pytest.raises(Refused, match=r"current|r7"):
            host.do("withdraw", "r7")
    host.stored("current").unlink()
    host.deploy(host.manifest("r1", 1))
    assert host.status()["condition"] == "in_sync"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "do: None is none; there are: deploy"),
        ({"do": "deploy"}, "a manifest is a mapping"),
        ({"do": "activate", "name": "../etc", "release": "r"}, "is no name of a stack"),
        ({"do": "activate", "name": "engine", "release": "r"}, "is no name of a stack"),
        ({"do": "activate", "name": "web"}, "is no name of a release"),
        ({"do": "withdraw", "name": "web", "release": "../r1"}, "is no name of a release"),
        ({"do": "remove"}, "is no name of a stack"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    host: Host, request_: dict[str, str], words: str
) -> None:
    with pytest.raises(Refused, match=words):
        host.ask(request_)
    assert host.listing() == []


def test_two_stacks_do_not_touch_each_other(host: Host) -> None:
    host.deploy(host.manifest("r1", 1))
    other = {
        **host.manifest("o1", 1),
        "name": "other",
        "resources": [
            resource(
                "bpf_prog",
                object=f"sha256:{host.digests['program']}",
                pin_dir="other",
                programs=["pass"],
            )
        ],
    }
    host.deploy(other)
    assert host.ask({"do": "remove", "name": "other"})["changed"]
    assert host.version() == 1
    assert host.status()["condition"] == "in_sync"
