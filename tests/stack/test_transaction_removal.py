# SPDX-License-Identifier: GPL-3.0-or-later
"""What is no longer declared goes, and nothing else; a stack that is taken away leaves nothing behind."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import snapshot
from stacks import HOME, NAME, Host, pinned, resource_of

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, libbpf, maps, pins
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import prog
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import transaction

OURS = f"{HOME}/{NAME}"


def test_what_is_no_longer_declared(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds()))
    kept = ("bpf_prog", "bpf_map_entries", "xdp_attach")
    declared = [each for each in host.all_kinds() if each[0] in kept]
    done = host.proven(host.manifest(declared, "r2"))
    assert {step["resource"] for step in done.plan} == {
        "cgroup_attach",
        "tc_attach",
        "sockmap_attach",
        "config_file",
        "bpf_map_pin",
    }
    assert not (host.directory / "thing.conf").exists()
    assert sorted(os.listdir(OURS)) == sorted(
        ["maps", "thing_xdp", "xdp_link", *("thing_tc", "thing_out", "thing_ops", "thing_msg")]
    )
    assert not [link for link in host.snapshot()["links"].values() if link["type"] != "xdp"]


def test_links_go_before_programs_and_programs_before_maps(host: Host) -> None:
    """Without the manifest of before, pins are all that tells."""
    host.converge(host.manifest(host.all_kinds()))
    done = host.proven(host.manifest([("bpf_map_pin", _map("other"))], "r2"), previous=())
    swept = next(step["actions"] for step in done.plan if step["resource"] == "prune")
    verbs = [" ".join(action.split()[:2]) for action in swept]
    assert verbs == sorted(verbs, key=["detach link", "unpin program", "unpin map"].index)
    assert len(verbs) == 4 + 5 + 3
    assert os.listdir(OURS) == ["other"]


def _map(name: str) -> dict[str, object]:
    return {
        "pin": f"{NAME}/{name}",
        "type": "hash",
        "key_size": 4,
        "value_size": 4,
        "max_entries": 8,
    }


def test_entries_that_are_no_longer_declared(host: Host) -> None:
    host.converge(host.manifest([host.programs(), host.numbers({1: 1, 2: 2, 3: 3})]))
    done = host.proven(host.manifest([host.programs(), host.numbers({"2": 2, 4: 4})], "r2"))
    path = f"{OURS}/maps/thing_numbers"
    assert done.actions == (f"add 1 entry of {path}", f"remove 2 entries of {path}")
    found = snapshot.bpftool("map", "dump", "pinned", path)
    assert sorted(each["formatted"]["key"] for each in found) == [2, 4]


def test_entries_of_a_map_that_is_another_one_now(host: Host) -> None:
    pin = f"{NAME}/own"
    entries = {"map": pin, "entries": [{"key": "01 00 00 00", "value": "02 00 00 00"}]}
    host.converge(host.manifest([("bpf_map_pin", _map("own")), ("bpf_map_entries", entries)]))
    Path(OURS, "own").unlink()
    other = {**_map("own"), "key_size": 8}
    done = host.proven(host.manifest([("bpf_map_pin", other)], "r2"))
    assert done.actions == (f"create map {OURS}/own",)


def test_prune_false_only_tells(host: Host) -> None:
    host.converge(host.manifest(host.all_kinds()))
    before = host.snapshot()
    declared = [each for each in host.all_kinds() if each[0] != "xdp_attach"]
    done = host.converge(host.manifest(declared, "r2", prune=False))
    assert not done.changed
    assert any(
        "left because of prune: false" in each and "xdp_link" in each for each in done.warnings
    )
    assert host.settled(before) == []


def test_a_map_with_entries_is_told_of(host: Host) -> None:
    host.converge(host.manifest([host.programs(), host.numbers({1: 1})]))
    done = host.proven(host.manifest([("bpf_map_pin", _map("other"))], "r2"), previous=())
    assert any("its entries are lost with it" in warning for warning in done.warnings)


@pytest.fixture
def foreign(host: Host, tmp_path: Path) -> Iterator[Path]:
    """A program that bpftool loads into the stack's directory."""
    os.makedirs(OURS, exist_ok=True)
    path = Path(OURS, "somebodys")
    with libbpf.open_object(str(host.objects[1])) as handle:
        handle.select(frozenset(["thing_xdp"]))
        handle.load()
        pins.pin(handle.program_fd("thing_xdp"), str(path))
    yield path
    path.unlink(missing_ok=True)


def test_what_is_foreign_is_left_alone_and_named(host: Host, foreign: Path) -> None:
    number = snapshot.bpftool("prog", "show", "pinned", str(foreign))["id"]
    wanted = host.manifest([host.programs(), host.xdp()])
    done = host.proven(wanted)
    again = host.converge(wanted)
    for result in (done, again):
        assert any("somebodys" in each and "left alone" in each for each in result.warnings)
    gone = transaction.remove([wanted])
    assert any("somebodys" in each for each in gone.warnings)
    assert snapshot.bpftool("prog", "show", "pinned", str(foreign))["id"] == number
    assert os.listdir(OURS) == ["somebodys"]


@pytest.mark.parametrize("where", ["cgroup", "xdp", "tc", "sockmap"])
def test_attachments_without_a_link_are_found_by_their_mark(host: Host, where: str) -> None:
    """Nothing but the program's mark tells of them when the manifest of before is lost, and the pin."""
    direct = {
        "cgroup": host.cgroup(link=None, mode="multi"),
        "xdp": host.xdp(link=None),
        "tc": host.tc(link=None),
        "sockmap": host.sockmap(link=None),
    }
    host.converge(host.manifest([host.programs(), direct[where]]))
    declared = [
        (
            "bpf_map_pin",
            {
                **_map("x"),
                "pin": f"{NAME}/maps/thing_sockets",
                "type": "sockhash",
                "value_size": 8,
                "max_entries": 16,
            },
        )
    ]
    done = host.proven(host.manifest(declared, "r2"), previous=())
    assert [each for each in done.actions if each.startswith("detach program")]
    assert not host.snapshot()["programs"]


def test_single_modules_are_taken_over(host: Host) -> None:
    """What the modules made, with the stack's mark, is the stack's; nothing is loaded, nothing detached."""
    wanted = host.manifest(host.all_kinds())
    sha = wanted.objects
    for each in sorted(wanted.resources, key=lambda each: transaction.ADAPTERS[each.kind].rank):
        load = transaction.ADAPTERS[each.kind].load
        if load is None:
            continue
        kind, desired = load()
        params = dict(each.params)
        if each.kind == "bpf_prog":
            params.update(object=host.resolve(next(iter(sha))), stack=NAME)
            desired = prog.desired
        declared = desired(params)
        kind.apply(declared, kind.plan(declared, kind.observe(declared)))
    before = host.snapshot()
    done = host.converge(wanted)
    assert (done.changed, done.actions) == (False, ())
    assert host.settled(before) == []


def test_what_a_module_loaded_without_the_mark_is_loaded_again(host: Host) -> None:
    wanted = host.manifest([host.programs(), host.xdp()])
    params = {**wanted.resources[0].params, "object": host.resolve(next(iter(wanted.objects)))}
    declared = prog.desired(params)
    prog.apply(declared, prog.plan(declared, prog.observe(declared)))
    maps = pinned("map", "maps/thing_numbers")["id"]
    done = host.proven(wanted)
    assert f"replace program {OURS}/thing_xdp" in done.actions
    assert pinned("map", "maps/thing_numbers")["id"] == maps


def test_removal_leaves_nothing(host: Host) -> None:
    before = host.snapshot()
    wanted = host.manifest(host.all_kinds(), drain=[host.numbers({9: 9})])
    host.converge(wanted)
    full = host.snapshot()
    told = transaction.remove([wanted], check=True)
    assert host.settled(full) == []
    done = transaction.remove([wanted])
    assert done.actions == told.actions
    assert done.actions[0].startswith("add 1 entry of")
    kinds = [step["resource"] for step in done.plan]
    order = [
        "bpf_map_entries",
        "sockmap_attach",
        "cgroup_attach",
        "xdp_attach",
        "tc_attach",
        "config_file",
        "bpf_prog",
    ]
    assert [kind for kind in kinds if kind in order] == sorted(
        (kind for kind in kinds if kind in order),
        key=lambda kind: order.index("xdp_attach" if kind == "cgroup_attach" else kind),
    )
    assert host.settled(before) == []
    assert not transaction.remove([wanted]).changed
    assert not transaction.remove([], name=NAME).changed


@pytest.mark.parametrize(
    "missing", ["out_link", "thing_xdp", "maps/thing_numbers", "msg_link", "own"]
)
def test_removal_from_half_a_state(host: Host, missing: str) -> None:
    before = host.snapshot()
    wanted = host.manifest(host.all_kinds(), drain=[host.numbers({9: 9})])
    host.converge(wanted)
    host.objects = {}  # the objects are not needed for it
    Path(OURS, missing).unlink()
    transaction.remove([wanted])
    assert host.settled(before) == []


def test_removal_without_a_manifest(host: Host) -> None:
    """Pins and marks tell what is ours."""
    before = host.snapshot()
    declared = [each for each in host.all_kinds() if each[0] != "config_file"]
    host.converge(host.manifest(declared))
    done = transaction.remove([], name=NAME)
    assert done.changed
    assert host.settled(before) == []


def _sockets(path: str, *keys: int) -> list[socket.socket]:
    """Connected sockets in the sockhash."""
    server = socket.create_server(("127.0.0.1", 0))
    made = [server]
    with pins.get(path) as fd:
        for key in keys:
            client = socket.create_connection(server.getsockname())
            made += [client, server.accept()[0]]
            maps.update(fd, struct.pack("=I", key), struct.pack("=Q", client.fileno()))
    return made


def test_removal_waits_for_sockets_and_goes_on_later(host: Host) -> None:
    wanted = host.manifest(
        [host.programs(), host.sockmap(drain_timeout=1), host.cgroup()],
        drain=[host.numbers({9: 9})],
    )
    host.converge(wanted)
    sockets = _sockets(f"{OURS}/maps/thing_sockets", 1, 2)
    with pytest.raises(Failure, match=r"sockets that linger.*: 2") as caught:
        transaction.remove([wanted])
    assert "are done and stay so; run it again to go on" in str(caught.value)
    # What serves the sockets that are in is there, and what may take them out.
    assert pinned("link", "out_link")
    assert pinned("link", "msg_link")
    found = snapshot.bpftool("map", "dump", "pinned", f"{OURS}/maps/thing_numbers")
    assert [each["formatted"]["value"] for each in found] == [9]
    for each in sockets:
        each.close()
    transaction.remove([wanted])
    assert not HOME.exists()


def test_given_resources_take_the_place_of_stored_ones(host: Host) -> None:
    before = host.snapshot()
    wanted = host.manifest([host.programs(), host.sockmap(drain_timeout=30)])
    host.converge(wanted)
    sockets = _sockets(f"{OURS}/maps/thing_sockets", 1, 2)
    forced = resource_of(host.sockmap(drain="force"))
    done = transaction.remove([wanted], resources=[forced])
    assert any(action.startswith("delete sockets in") for action in done.actions)
    for each in sockets:
        each.close()
    assert host.settled(before) == []


def test_given_resources_without_a_stored_manifest(host: Host) -> None:
    before = host.snapshot()
    host.converge(host.manifest([host.programs(), host.sockmap(link=None), host.cgroup()]))
    given = [resource_of(host.sockmap(link=None, drain="none"))]
    drain = [
        resource_of(host.numbers({1: 1})),
        resource_of(host.numbers({1: 1}, map=f"{NAME}/none")),
    ]
    done = transaction.remove([], resources=given, drain=drain, name=NAME)
    assert done.actions[0].startswith("add 1 entry of")
    assert host.settled(before) == []
    assert not list(info.links()) or not HOME.exists()


def test_a_stored_drain_that_does_not_fit_any_more(host: Host) -> None:
    """It is no reason not to remove; one that is given has to fit."""
    before = host.snapshot()
    wanted = host.manifest([host.programs()], drain=[host.numbers({"no number": 1})])
    host.converge(wanted)
    with pytest.raises(Failure, match="no number"):
        transaction.remove([], drain=[resource_of(host.numbers({"no number": 1}))], name=NAME)
    done = transaction.remove([wanted])
    assert any("cannot be drained first" in each for each in done.warnings)
    assert host.settled(before) == []


def test_what_is_pruned_does_not_wait_for_sockets(host: Host) -> None:
    """They keep the program they have; the old attachment goes with its transaction, and says so."""
    host.converge(host.manifest([host.programs(), host.numbers({1: 1}), host.sockmap()]))
    sockets = _sockets(f"{OURS}/maps/thing_sockets", 1, 2)
    done = host.proven(host.manifest([host.programs(), host.numbers({1: 1})], "r2"))
    assert done.actions == (f"detach link {OURS}/maps/thing_sockets sk_msg_verdict",)
    assert any(
        "sockets that keep the program until they close: 2" in each for each in done.warnings
    )
    # What is sent by the first goes by the program, which leads it back to the first.
    sockets[1].settimeout(5)
    sockets[1].sendall(b"still here")
    assert sockets[1].recv(100) == b"still here"
    for each in sockets:
        each.close()


def test_a_second_name_of_a_link_goes_and_the_link_stays(host: Host) -> None:
    """A run that was killed while it gave a link another name leaves both."""
    wanted = host.manifest([host.programs(), host.xdp()])
    host.converge(wanted)
    whole = host.snapshot()
    with pins.get(f"{OURS}/xdp_link") as fd:
        pins.pin(fd, f"{OURS}/former_link")
    done = host.proven(wanted)
    assert done.actions == (f"unpin link {OURS}/former_link",)
    assert host.settled(whole) == []
