# SPDX-License-Identifier: GPL-3.0-or-later
"""Single resources, converged as a release converges them: in this process, under whatever records."""

from __future__ import annotations

from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils import options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import (
    bpffs,
    cgroup,
    config_file,
    map_entries,
    map_pin,
    prog,
    sockmap,
    tc,
    xdp,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import backend, model, services

_KINDS: dict[str, Any] = {
    "bpffs": bpffs,
    "bpf_prog": prog,
    "bpf_map_pin": map_pin,
    "bpf_map_entries": map_entries,
    "cgroup_attach": cgroup,
    "config_file": config_file,
    "sockmap_attach": sockmap,
    "tc_attach": tc,
    "xdp_attach": xdp,
    "xdp_lb_backend": backend,
    "xdp_lb_services": services,
}

Resource = tuple[str, dict[str, Any]]


def converge(resource: Resource, kinds: dict[str, Any] | None = None) -> list[str]:
    """What was done. It has to be there afterwards, seen by the kind itself."""
    name, given = resource
    kind = (kinds or _KINDS)[name]
    desired = (model if name == "xdp_lb_services" else kind).desired(_complete(name, given))
    changes = kind.plan(desired, kind.observe(desired))
    if changes:
        kind.apply(desired, changes)
    left = kind.plan(desired, kind.observe(desired))
    assert not left, [str(change) for change in left]
    return [str(change) for change in changes]


def _complete(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """All options of the resource; those that are not given as AnsibleModule fills them in."""
    specification = options.RESOURCES[name]["argument_spec"]
    return _filled(specification, given)


def _filled(specification: Any, given: dict[str, Any]) -> dict[str, Any]:
    assert set(given) <= set(specification), set(given) - set(specification)
    found = {key: each.get("default") for key, each in specification.items()} | given
    for key, each in specification.items():
        inner = each.get("options")
        if inner and isinstance(found[key], list):
            found[key] = [_filled(inner, item) for item in found[key]]
        elif inner and isinstance(found[key], dict):
            found[key] = _filled(inner, found[key])
    return found
