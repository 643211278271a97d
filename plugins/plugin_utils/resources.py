# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The resources of a stack, validated on the controller by the specifications of their modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import UnsupportedError

from ansible_collections.ebpf.fleet.plugins.module_utils import front
from ansible_collections.ebpf.fleet.plugins.module_utils.options import (
    OF_THE_STACK,
    RESOURCES,
    Options,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure

_COLLECTION = "ebpf.fleet."


def normalised(option: str, resources: Sequence[Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """What ``option`` of a stack lists: where each stands (for errors), its kind, all its options.

    Raises Failure that names the resource by position, from 1, and kind, as the engine does.
    """
    called = {"resources": "resource"}.get(option, f"{option}: resource")
    return [_normalised(f"{called} {number}", item) for number, item in enumerate(resources, 1)]


def _normalised(place: str, item: Any) -> tuple[str, str, dict[str, Any]]:
    if not isinstance(item, Mapping) or len(item) != 1:
        raise Failure(
            f"{place} is none: write one name with its options below it, such as "
            "'xdp_attach: {interface: eth0, prog: …}'"
        )
    ((written, given),) = item.items()
    kind = str(written)
    if kind.startswith(_COLLECTION):
        kind = kind[len(_COLLECTION) :]
    if kind not in RESOURCES:
        known = ", ".join(sorted(RESOURCES))
        raise Failure(f"{place}: {kind!r} is no resource of a stack; known are {known}")
    where = f"{place} ({kind})"
    if not isinstance(given, Mapping):
        raise Failure(f"{where}: its options are missing; write them as a dictionary below it")
    for taken in OF_THE_STACK[kind]:
        if taken in given:
            raise Failure(f"{where}: {taken} is the stack's to say; leave it out here")
    written_out = {name: value for name, value in given.items() if value is not None}
    return where, kind, _validated(where, RESOURCES[kind], written_out)


def _validated(where: str, options: Options, given: dict[str, Any]) -> dict[str, Any]:
    specification = {**options, "argument_spec": unexpanded(options["argument_spec"])}
    checked = ArgumentSpecValidator(**specification).validate(given)
    if checked.errors.errors:
        raise Failure(f"{where}: {'; '.join(_said(checked.errors.errors))}")
    params: dict[str, Any] = checked.validated_parameters
    try:
        front.require_text(params)
    except Failure as failure:
        raise Failure(f"{where}: {failure}", **failure.details) from failure
    return params


def _said(errors: Iterable[Exception]) -> list[str]:
    return [
        f"no such option: {error}" if isinstance(error, UnsupportedError) else str(error)
        for error in errors
    ]


def unexpanded(specification: Mapping[str, Any]) -> dict[str, Any]:
    """A specification whose paths stay as written: "~" and "$HOME" here are not the host's.

    It shares nothing with the original, so that no default is filled in there.
    """
    specified: dict[str, Any] = {}
    for option, value in specification.items():
        new = copy.deepcopy(value)
        if new.get("type") == "path":
            new["type"] = "str"
        if "options" in new:
            new["options"] = unexpanded(new["options"])
        specified[option] = new
    return specified
