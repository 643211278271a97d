# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a release: what it takes, what it refuses, and what makes two of them the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.stack import manifest

OBJECT = "ab" * 32
PROG = {"bpf_prog": {"object": f"sha256:{OBJECT}", "pin": "web/x", "state": "present"}}
ENTRIES = {"bpf_map_entries": {"map": "web/m", "entries": [{"key": 1, "value": 2}]}}


def document(**more: Any) -> dict[str, Any]:
    return {"layout": 1, "name": "web", "release": "r1", "resources": [PROG, ENTRIES], **more}


def test_what_is_parsed() -> None:
    found = manifest.parse(document(drain=[ENTRIES], prune=False, boot="network"))
    assert (found.name, found.release, found.prune, found.boot) == ("web", "r1", False, "network")
    assert [(each.kind, each.index) for each in found.resources] == [
        ("bpf_prog", 0),
        ("bpf_map_entries", 1),
    ]
    assert [each.kind for each in found.drain] == ["bpf_map_entries"]
    assert found.objects == {OBJECT}


def test_defaults() -> None:
    found = manifest.parse(document())
    assert (found.prune, found.boot, found.drain) == (True, "early", ())


def test_it_says_everything_that_it_was_made_of() -> None:
    found = manifest.parse(document(drain=[ENTRIES]))
    assert manifest.parse(json.loads(found.canonical())) == found
    assert json.loads(found.canonical()) == found.document


def test_canonical_bytes_do_not_depend_on_the_order_of_keys() -> None:
    turned = dict(reversed(list(document().items())))
    assert manifest.parse(turned).canonical() == manifest.parse(document()).canonical()
    assert b" " not in manifest.parse(document()).canonical()


def test_the_digest_is_over_all_but_the_name_of_the_release() -> None:
    one = manifest.parse(document())
    content = {key: value for key, value in one.document.items() if key != "release"}
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    assert one.digest == hashlib.sha256(encoded).hexdigest()
    assert manifest.with_release(one, "r2").digest == one.digest
    assert manifest.parse(document(prune=False)).digest != one.digest


def test_a_release_without_a_name_is_called_by_its_content() -> None:
    found = manifest.parse({key: value for key, value in document().items() if key != "release"})
    assert found.release == f"auto-{found.digest[:12]}"
    assert manifest.parse(document(release=None)).release == found.release


BAD = [
    ([], "a manifest is a mapping"),
    ({"name": "web"}, "has layout None, and this ebpf.fleet knows 1"),
    (document(layout=2), "layout 2"),
    (document(more=1), "a manifest has no 'more'"),
    (document(name="a.b"), "no name of a stack"),
    (document(name=""), "no name of a stack"),
    (document(name="a/b"), "no name of a stack"),
    (document(name="engine"), "no name of a stack"),
    (document(name="x" * 65), "no name of a stack"),
    (document(release="none"), "no name of a release"),
    (document(release="current"), "no name of a release"),
    (document(release=".."), "no name of a release"),
    (document(release="a/b"), "no name of a release"),
    (document(release=7), "no name of a release"),
    (document(resources=None), "resources: write a list"),
    (document(resources={}), "resources: write a list"),
    (document(resources=[{}]), r"resources\[0\]: write one resource"),
    (document(resources=[PROG, {**PROG, **ENTRIES}]), r"resources\[1\]: write one resource"),
    (document(resources=[{"bpf_info": {}}]), "'bpf_info' is no resource"),
    (document(resources=[{"bpf_prog": []}]), "the options are a mapping"),
    (document(resources=[{"bpf_prog": {"object": "/tmp/x.o"}}]), "named by its content"),
    (document(resources=[{"bpf_prog": {"object": "sha256:12"}}]), "named by its content"),
    (document(resources=[{"bpf_prog": {}}]), "named by its content"),
    (document(resources=[{"bpffs": {"state": "absent"}}]), "leave out the resource"),
    (document(resources=[{"bpffs": {"path": "/a\0b"}}]), "holds a character that is no text"),
    (document(resources=[{"bpffs": {"path": "\ud800"}}]), "holds a character that is no text"),
    (document(drain=[PROG]), r"drain\[0\]: 'bpf_prog' is no resource"),
    (document(prune="yes"), "prune: 'yes'"),
    (document(boot="late"), "boot: 'late'"),
]


@pytest.mark.parametrize(("given", "why"), BAD, ids=[why for _given, why in BAD])
def test_nonsense(given: Any, why: str) -> None:
    with pytest.raises(Failure, match=why):
        manifest.parse(given)


def test_what_json_cannot_say() -> None:
    with pytest.raises(Failure, match="what JSON cannot say"):
        manifest.encode({"a": {1, 2}})
    with pytest.raises(Failure, match="what JSON cannot say"):
        manifest.encode({"a": float("nan")})


def test_what_is_removed_needs_no_object() -> None:
    (found,) = manifest.to_remove([{"bpf_prog": {"pin": "web/x"}}], "resources")
    assert found.kind == "bpf_prog"
    with pytest.raises(Failure, match="is no resource"):
        manifest.to_remove([{"bpf_prog": {"pin": "web/x"}}], "drain")
