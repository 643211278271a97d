#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hand a request to the engine on the host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_engine
short_description: Hand a request to the engine on a host
version_added: 0.1.0
description:
  - The transport of M(ebpf.fleet.bpf_stack) and M(ebpf.fleet.bpf_release), which are what a
    playbook uses. Options and results may change with any release of the collection.
  - The engine lies unpacked in C(/var/lib/ebpf-fleet/engine/), in a directory named by its digest,
    so that a request to a host that has it is small. What the host lacks it names in RV(lacks);
    nothing is done then.
options:
  engine:
    description: SHA-256 of the engine, in hexadecimal.
    type: str
    required: true
  objects:
    description: SHA-256 of each object that the request refers to and the controller has.
    type: list
    elements: str
    default: []
  request:
    description: What the engine is asked for.
    type: dict
    required: true
  blobs:
    description: Directory with what the host lacked, each file named by its digest.
    type: path
attributes:
  check_mode:
    description: The engine is asked what it would do, and is not installed.
    support: full
  diff_mode:
    description: The engine says what each target is before and after.
    support: full
  idempotent:
    description: The same request again changes nothing.
    support: full
  platform:
    description: The systems this runs on.
    support: full
    platforms: linux
requirements:
  - Linux 5.10 or later, root
  - Python 3.9 or later on the target
author:
  - The ebpf.fleet authors (@ebpf-fleet)
seealso:
  - module: ebpf.fleet.bpf_stack
  - module: ebpf.fleet.bpf_release
"""

EXAMPLES = r"""
- name: The engine tells what it knows, on a host that has it
  ebpf.fleet.bpf_engine:
    engine: "{{ digest_of_the_engine }}"
    request: {do: status}
"""

RETURN = r"""
lacks:
  description: Digests of what the host lacks.
  type: list
  elements: str
  returned: when something is lacking
"""

import hashlib
import importlib
import os
import sys
import traceback

from ansible.module_utils.basic import AnsibleModule

PACKAGE = "ebpf_fleet"
STATE = "/var/lib/ebpf-fleet"
PINS = "/sys/fs/bpf/ebpf_fleet"
# A host on which nothing is stored or pinned for a stack has nothing to do for these.
NOTHING_TO_DO = ("withdraw", "forget", "remove")


def stack_of(request: dict) -> str:
    """The name of the stack that a request is about."""
    return str(request.get("name") or request.get("manifest", {}).get("name") or "")


def is_idle(request: dict) -> bool:
    """Whether there is nothing to do, as the host has nothing of the stack."""
    name = stack_of(request)
    return (
        request.get("do") in NOTHING_TO_DO
        and not request.get("resources")
        and not any(os.path.lexists(os.path.join(base, name)) for base in (STATE, PINS))
    )


def lacking(options: dict) -> list:
    """What is needed on a host without the engine: it, and the objects that are not stored."""
    store = os.path.join(STATE, stack_of(options["request"]), "objects")
    wanted = [digest for digest in options["objects"] if not os.path.exists(f"{store}/{digest}")]
    return [options["engine"], *wanted]


def verified(archive: str, digest: str) -> str:
    """The path of the engine that was sent. Raises ValueError when it is another."""
    with open(archive, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found != digest:
        raise ValueError(f"{archive} has sha256 {found}")
    return archive


def engine_in(place: str):
    """The engine's module in a directory or an archive, and the module of its Failure."""
    sys.path.insert(0, place)
    return (
        importlib.import_module(f"{PACKAGE}.stack.main"),
        importlib.import_module(f"{PACKAGE}.resource.errors"),
    )


def answer(module: AnsibleModule, place: str, is_installed: bool) -> dict:
    """Have the engine at ``place`` handle the request; one that was sent is installed first."""
    digest, blobs = module.params["engine"], module.params["blobs"]
    request = {**module.params["request"], "engine": digest}
    if blobs:
        request["blobs"] = blobs
    engine, errors = engine_in(place)
    try:
        if not is_installed and not module.check_mode and request["do"] == "deploy":
            engine.install_engine(place, digest)
        return engine.handle(request, module.check_mode)
    except errors.Failure as failure:
        return {"failed": True, "msg": str(failure), **failure.details}


def respond(module: AnsibleModule) -> dict:
    """The module's result."""
    options = module.params
    installed = os.path.join(STATE, "engine", options["engine"])
    if os.path.isdir(installed):
        return answer(module, installed, True)
    if is_idle(options["request"]):
        return {"changed": False, "actions": [], "release": None, "releases": []}
    if not options["blobs"]:
        return {"lacks": lacking(options)}
    sent = verified(os.path.join(options["blobs"], options["engine"]), options["engine"])
    return answer(module, sent, False)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "engine": {"type": "str", "required": True},
            "objects": {"type": "list", "elements": "str", "default": []},
            "request": {"type": "dict", "required": True},
            "blobs": {"type": "path"},
        },
        supports_check_mode=True,
    )
    # The request may be long; it is not said back.
    told = {"invocation": {"module_args": {"engine": module.params["engine"]}}}
    if os.geteuid() != 0:
        module.fail_json(msg="bpf(2) needs root on this host; set become: true for this task")
    try:
        result = respond(module)
    except Exception as error:  # pylint: disable=broad-exception-caught # noqa: BLE001
        # Whatever it is, the operator gets a sentence and what a report of it needs.
        module.fail_json(
            msg=f"the engine failed in a way that it should not ({type(error).__name__}: {error}); "
            "please report this with what stands in 'where'",
            where=traceback.format_exc().splitlines(),
            **told,
        )
    for warning in result.pop("warnings", []):
        module.warn(warning)
    if result.pop("failed", False):
        module.fail_json(**result, **told)
    module.exit_json(**result, **told)


if __name__ == "__main__":
    main()
