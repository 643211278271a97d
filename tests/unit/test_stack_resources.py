# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The resources of a stack, as the controller validates and completes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils import options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import manifest
from ansible_collections.ebpf.fleet.plugins.plugin_utils.resources import normalised

PROGRAM = {"object": "a.bpf.o", "pin": "web/a"}


def rejected(*resources: Any) -> str:
    """What is said about resources that are not valid."""
    with pytest.raises(Failure) as failure:
        normalised("resources", resources)
    return str(failure.value)


def test_the_controller_knows_the_same_resources_as_the_engine() -> None:
    assert set(options.RESOURCES) == set(manifest.KINDS)


def test_all_options_are_filled_in() -> None:
    ((where, kind, params),) = normalised("resources", [{"bpf_prog": PROGRAM}])
    assert (where, kind) == ("resource 1 (bpf_prog)", "bpf_prog")
    assert params.keys() == options.BPF_PROG["argument_spec"].keys()
    assert params["compiler"] == "clang"
    assert params["object"] == "a.bpf.o"


def test_an_option_of_nothing_is_not_given() -> None:
    given = {**PROGRAM, "source": None, "compiler": None}
    ((_where, _kind, params),) = normalised("resources", [{"bpf_prog": given}])
    assert params["compiler"] == "clang"


def test_the_collections_name_may_stand_before_the_modules() -> None:
    ((_where, kind, _params),) = normalised("resources", [{"ebpf.fleet.bpf_prog": PROGRAM}])
    assert kind == "bpf_prog"


def test_values_are_converted_as_in_a_module() -> None:
    given = {"interface": "eth0", "prog": "web/a", "force": "yes", "priority": "7"}
    ((_where, _kind, params),) = normalised("resources", [{"xdp_attach": given}])
    assert (params["force"], params["priority"]) == (True, 7)


def test_paths_are_those_of_the_host_as_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "/controller")
    given = {"config_file": {"path": "~/$HERE", "content": ""}}
    ((_where, _kind, params),) = normalised("resources", [given])
    assert params["path"] == "~/$HERE"


def test_defaults_of_inner_options_are_filled_in_and_stay_apart() -> None:
    before = copy.deepcopy(options.XDP_LB_SERVICES)
    first, second = normalised("resources", [{"xdp_lb_services": {}}, {"xdp_lb_services": {}}])
    assert first[2]["nat_ports"] == {"first": 1024, "last": 32767}
    assert first[2]["nat_ports"] is not second[2]["nat_ports"]
    assert before == options.XDP_LB_SERVICES


@pytest.mark.parametrize("item", ["bpf_prog", {}, {"bpf_prog": PROGRAM, "bpffs": {}}, None, []])
def test_what_is_no_resource_is_named_by_its_place(item: Any) -> None:
    assert rejected({"bpffs": {}}, item).startswith("resource 2 is none: write one name")


def test_an_unknown_resource_lists_the_known_ones() -> None:
    said = rejected({"xdp_atach": {}})
    assert said.startswith("resource 1: 'xdp_atach' is no resource of a stack; known are bpf_")
    assert "xdp_attach" in said


def test_a_resource_without_options_is_told() -> None:
    assert rejected({"bpffs": None}) == (
        "resource 1 (bpffs): its options are missing; write them as a dictionary below it"
    )


def test_an_unknown_option_lists_the_known_ones() -> None:
    said = rejected({"bpffs": {"pth": "/sys/fs/bpf"}})
    assert said.startswith("resource 1 (bpffs): no such option: pth. Supported parameters include")


def test_every_defect_of_a_resource_is_told_at_once() -> None:
    said = rejected({"xdp_attach": {"mode": "fast"}})
    assert said.startswith("resource 1 (xdp_attach): ")
    assert "missing required arguments: interface" in said
    assert "value of mode must be one of: auto, native, generic, offload, got: fast" in said


def test_rules_between_options_hold() -> None:
    said = rejected({"bpf_prog": {"object": "a", "source": "b", "pin": "web/a"}})
    assert "mutually exclusive: object|source" in said
    assert "missing: object, source" in rejected({"bpf_prog": {"pin": "web/a"}})


@pytest.mark.parametrize("option", ["lock_timeout", "stack", "release"])
def test_what_the_stack_says_is_no_option_of_a_resource(option: str) -> None:
    said = rejected({"bpf_prog": {**PROGRAM, option: "1"}})
    assert said == f"resource 1 (bpf_prog): {option} is the stack's to say; leave it out here"


def test_text_that_is_none_is_refused() -> None:
    assert "holds a character that is no text" in rejected({"bpffs": {"path": "/a\0b"}})


@pytest.mark.parametrize(
    ("params", "option"),
    [
        ({"object": "a", "state": "present", "remote_src": False}, "object"),
        ({"source": "a", "state": "present", "remote_src": False}, "source"),
        ({"object": "a", "state": "absent", "remote_src": False}, ""),
        ({"object": "a", "state": "present", "remote_src": True}, ""),
    ],
)
def test_files_of_the_controller_are_sent(params: dict[str, Any], option: str) -> None:
    assert options.file_option("bpf_prog", params) == option
    assert options.file_option("bpffs", params) == ""
