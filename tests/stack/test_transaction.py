# SPDX-License-Identifier: GPL-3.0-or-later
"""A stack is converged whole or not at all; check mode says exactly what a run does; the kernel is the witness."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import stacks
from stacks import HOME, NAME, Host, pinned

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import features, mounts, pins, syscall
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Cmd
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import transaction
from ansible_collections.ebpf.fleet.plugins.module_utils.stack.plan import Step

WRITES = {
    Cmd.MAP_CREATE,
    Cmd.MAP_UPDATE_ELEM,
    Cmd.MAP_DELETE_ELEM,
    Cmd.MAP_UPDATE_BATCH,
    Cmd.PROG_LOAD,
    Cmd.OBJ_PIN,
    Cmd.LINK_CREATE,
    Cmd.LINK_UPDATE,
    Cmd.LINK_DETACH,
}


def test_first_time(host: Host) -> None:
    done = host.proven(host.manifest(host.all_kinds()))
    assert done.changed
    order = [step["resource"] for step in done.plan]
    assert sorted(order[:2]) == ["bpf_map_pin", "bpf_prog"]
    assert sorted(order[2:4]) == ["bpf_map_entries", "config_file"]
    assert order[4:7] == ["bpf_test_run", "sockmap_attach", "tc_attach"]
    assert sorted(order[7:]) == ["cgroup_attach", "xdp_attach"]
    assert len(done.resources) == 9
    assert pinned("prog", "thing_xdp")["metadata"]["release"] == "r1"
    assert pinned("prog", "thing_xdp")["metadata"]["stack"] == NAME
    assert (host.directory / "thing.conf").read_text() == "version 1\n"


def test_an_unchanged_host_is_only_read(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = host.manifest(host.all_kinds())
    host.converge(wanted)
    calls = []
    before = syscall.call
    monkeypatch.setattr(
        syscall, "call", lambda cmd, attr, doing: (calls.append(cmd), before(cmd, attr, doing))[1]
    )
    assert not host.converge(wanted).changed
    assert calls
    assert not WRITES & set(calls)


def test_upgrade_by_link_update(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds(1)))
    links = ("msg_link", "tc_link", "xdp_link", "out_link")
    before = {name: pinned("link", name)["id"] for name in links}
    numbers = pinned("map", "maps/thing_numbers")["id"]
    done = host.proven(host.manifest(host.all_kinds(2), "r2"))
    assert [action for action in done.actions if action.startswith("update link")]
    assert {name: pinned("link", name)["id"] for name in links} == before
    assert pinned("map", "maps/thing_numbers")["id"] == numbers
    current = pinned("prog", "thing_xdp")
    assert pinned("link", "xdp_link")["prog_id"] == current["id"]
    assert current["metadata"]["release"] == "r2"


def test_a_new_release_alone_loads_nothing(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds(), "r1"))
    before = pinned("prog", "thing_xdp")["id"]
    done = host.converge(host.manifest(host.all_kinds(), "r2"))
    assert (done.changed, done.actions) == (False, ())
    assert pinned("prog", "thing_xdp")["id"] == before


@pytest.mark.parametrize("stage", ["check", "run"])
def test_what_the_verifier_rejects(host: Host, stage: str) -> None:
    host.converge(host.manifest(host.all_kinds()))
    failure = host.refused(
        host.manifest(host.all_kinds(3), "r3"), "bpf_prog.*EACCES|EACCES", check=stage == "check"
    )
    assert failure.details["log"]
    assert "bpf_prog" in failure.details["step"]


def test_a_gate_that_is_not_passed(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds()))
    declared = [each for each in host.all_kinds(2) if each[0] != "bpf_test_run"]
    wanted = host.manifest([*declared, host.gate("drop")], "r2")
    failure = host.refused(wanted, "expected verdict drop, got pass")
    assert "bpf_test_run" in failure.details["step"]
    assert any("bpf_prog" in step for step in failure.details["undone"])
    assert "everything is as it was" in str(failure)


KINDS = (
    "bpf_prog",
    "bpf_map_pin",
    "bpf_map_entries",
    "config_file",
    "sockmap_attach",
    "tc_attach",
    "xdp_attach",
    "cgroup_attach",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_upgrade", [False, True], ids=["install", "upgrade"])
def test_a_failure_after_each_kind(
    host: Host, kind: str, is_upgrade: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done up to and with this kind is taken back, exactly."""
    if is_upgrade:
        host.converge(host.manifest(host.all_kinds(1)))
    else:
        monkeypatch.setattr(host, "kept", [])
    wanted = host.manifest(host.all_kinds(2), "r2")
    steps = [step["resource"] for step in host.converge(wanted, check=True).plan]
    if kind not in steps:
        assert (kind, is_upgrade) == ("bpf_map_pin", True)
        return
    last = len(steps) - 1 - steps[::-1].index(kind)
    whole = transaction._carry_out

    def carry_out(steps: Sequence[Step], at: list[str]) -> None:
        whole(steps[: last + 1], at)
        raise OSError(12, "Cannot allocate memory", "a step of the test")

    with monkeypatch.context() as patch:
        patch.setattr(transaction, "_carry_out", carry_out)
        failure = host.refused(wanted, "ENOMEM")
    assert kind in failure.details["step"]
    assert failure.details["errno"] == "ENOMEM"
    host.proven(wanted)


def test_what_keeps_the_release_fails(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds(1)))

    def commit(_plan: object) -> None:
        raise OSError(28, "No space left on device", "/var/lib")

    failure = host.refused(
        host.manifest(host.all_kinds(2), "r2"), "keeping the release.*ENOSPC", commit=commit
    )
    assert failure.details["errno"] == "ENOSPC"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_takes_everything_back(host: Host, number: signal.Signals) -> None:
    host.converge(host.manifest(host.all_kinds(1)))
    assert threading.current_thread() is threading.main_thread()

    def handler(_number: int, _frame: object) -> None:
        raise AssertionError("the signal went past the transaction")

    def begin(_plan: object) -> None:
        os.kill(os.getpid(), number)

    # Not what this process was started with: a shell lets its background jobs ignore SIGINT.
    before = signal.signal(number, handler)
    try:
        failure = host.refused(
            host.manifest(host.all_kinds(2), "r2"), f"ended by {number.name}", begin=begin
        )
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
    assert "everything is as it was" in str(failure)


def test_a_pin_that_nobody_makes(host: Host) -> None:
    host.refused(
        host.manifest([host.programs(), host.xdp(prog=f"{NAME}/typo")]),
        "needs /sys/fs/bpf/ebpf_fleet/things-[0-9]+/typo, which no resource of the stack makes",
    )
    host.refused(
        host.manifest([host.programs(), host.xdp(prog="others/typo")]),
        "needs /sys/fs/bpf/ebpf_fleet/others/typo: nothing is pinned there",
    )
    assert not HOME.exists()


def test_a_map_of_another_shape(host: Host) -> None:
    host.converge(host.manifest([host.programs(), host.numbers({1: 1})]))
    declared = [host.programs(map_max_entries={"thing_numbers": 32}), host.numbers({1: 1})]
    for check in (True, False):
        host.refused(host.manifest(declared, "r2"), "on_incompatible_map: recreate", check=check)
    declared[0][1]["on_incompatible_map"] = "recreate"
    done = host.proven(host.manifest(declared, "r2"))
    assert any("replaced by an empty map" in warning for warning in done.warnings)
    assert any(action.startswith("add 1 entry") for action in done.actions)


@pytest.fixture
def unmounted() -> Iterator[None]:
    """A host on which nobody has mounted a bpffs yet."""
    while os.path.ismount("/sys/fs/bpf"):
        mounts.unmount("/sys/fs/bpf")
    yield
    if not os.path.ismount("/sys/fs/bpf"):
        mounts.mount_bpffs("/sys/fs/bpf", 0o700)


def test_without_a_bpffs(host: Host, unmounted: None) -> None:
    """A stack that mounts none where none is fails before anything is changed."""
    for check in (True, False):
        host.refused(host.manifest([host.programs()]), "not in a BPF file system", check=check)


def test_the_stack_mounts_its_bpffs(host: Host, unmounted: None) -> None:
    declared = [host.cgroup(), host.programs(), ("bpffs", {}), host.numbers({1: 1})]
    before = host.snapshot()
    told = host.converge(host.manifest(declared), check=True)
    assert not host.settled(before)
    done = host.converge(host.manifest(declared))
    assert done.actions == told.actions
    assert done.actions[0] == "mount bpffs /sys/fs/bpf"
    assert not host.converge(host.manifest(declared)).changed


def test_two_stacks_leave_each_other_alone(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds()))
    ours = host.snapshot()
    other = stacks.Host(host.objects, host.group, host.netns, host.directory)
    document = host.manifest([host.programs()]).document
    text = json.dumps(document["resources"]).replace(NAME, f"{NAME}-too")
    made = stacks.manifest.parse({**document, "name": f"{NAME}-too", "resources": json.loads(text)})
    other.converge(made)
    transaction.remove([made])
    assert host.settled(ours) == []


def test_a_cgroup_that_is_not_there_yet(host: Host) -> None:
    """A service that starts later finds its program."""
    group = host.group / "later" / "deep"
    declared = [host.programs(), host.cgroup(cgroup=str(group))]
    host.refused(host.manifest(declared), f"there is no cgroup {group}")
    declared = [host.programs(), host.cgroup(cgroup=str(group), create_cgroup=True)]
    failing = host.manifest(declared)
    host.refused(failing, "EIO", commit=_fail)
    assert not group.parent.exists()
    try:
        done = host.proven(host.manifest(declared))
        assert f"create cgroup {group}" in done.actions
        transaction.remove(host.kept)
        assert group.is_dir()
    finally:
        group.rmdir()
        group.parent.rmdir()


def _fail(_plan: object) -> None:
    raise OSError(5, "Input/output error", "the store")


def test_without_links_for_sockmaps(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a kernel before 6.10 the program is attached directly, when that was allowed."""
    monkeypatch.setattr(features, "sockmap_link", lambda: False)
    declared = [host.programs(), host.sockmap(link_fallback=True)]
    host.proven(host.manifest(declared))
    assert not Path(f"{HOME}/{NAME}/msg_link").exists()
    upgraded = [host.programs(2), host.sockmap(link_fallback=True)]
    done = host.proven(host.manifest(upgraded, "r2"))
    assert done.actions[-1].startswith("replace program")
    monkeypatch.undo()
    done = host.proven(host.manifest(upgraded, "r2"))
    assert done.actions[-1].startswith("take over by link")


def test_what_other_runs_left_half_done(host: Host) -> None:
    """Names of objects that waited for their place, and empty directories, go with the next run."""
    wanted = host.manifest(host.all_kinds())
    host.converge(wanted)
    whole = host.snapshot()
    with pins.get(f"{HOME}/{NAME}/maps/thing_numbers") as fd:
        pins.pin(fd, f"{HOME}/{NAME}/own__next")
        pins.pin(fd, f"{HOME}/{NAME}/maps/thing_numbers__next")
    Path(f"{HOME}/{NAME}/empty/deeper").mkdir(parents=True)
    done = host.proven(wanted)
    assert len(done.actions) == 4  # the gate, too
    assert host.settled(whole) == []
