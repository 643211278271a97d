# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What a stack has to know of each kind of resource, besides how it is converged.

Each kind is imported when a manifest uses it: a run over an unchanged host is short, and half of it
would be reading what it does not need.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..resource.engine import Kind
from ..resource.paths import pin_path

Params = Mapping[str, Any]
Found = tuple[Kind[Any, Any], Callable[[dict[str, Any]], Any]]

# A pin that stands for every pin in its directory.
ANY = "*"


def _anonymous(params: Params) -> frozenset[str]:  # noqa: ARG001
    return frozenset()


def _the_host(params: Params) -> frozenset[str]:  # noqa: ARG001
    return frozenset(("xdp_lb_backend",))


def _nothing(params: Params) -> tuple[str, ...]:  # noqa: ARG001
    return ()


class Adapter(NamedTuple):
    """One kind of resource.

    ``load`` imports the kind and its ``desired``. ``needs`` are pins that have to be there before,
    ``after`` those that need not, ``gives`` those that it makes. ``identity``: what it is known by,
    to the manifest before and among its own; two with one in common are the same thing. ``removal``
    gives the options that take it away, when of its identity only the given part is to go; None
    when there is nothing to take away. ``staged``: it is really made in the view, to plan by.
    """

    load: Callable[[], Found] | None
    rank: int
    identity: Callable[[Params], frozenset[str]]
    needs: Callable[[Params], tuple[str, ...]] = _nothing
    after: Callable[[Params], tuple[str, ...]] = _nothing
    gives: Callable[[Params], tuple[str, ...]] = _nothing
    removal: Callable[[Params, Collection[str]], dict[str, Any] | None] = lambda _params, _gone: (
        None
    )
    staged: bool = False
    divisible: bool = False  # a part of its identity may go by itself
    hook: bool = False  # it decides which packets or sockets meet which program
    brief: Callable[[Any], dict[str, Any]] | None = None  # what is reported, if not the kind's own


def _pin(params: Params, *options: str) -> tuple[str, ...]:
    return tuple(pin_path(params[option]) for option in options if params.get(option))


def _words(*words: Any) -> str:
    return " ".join(str(word or "-") for word in words)


def _absent(params: Params, _gone: Collection[str]) -> dict[str, Any]:
    return {**params, "state": "absent"}


def _bpffs() -> Found:
    from ..resource import bpffs

    return bpffs, bpffs.desired


def _prog() -> Found:
    from ..resource import prog

    def desired(params: dict[str, Any]) -> Any:
        # Here a program is not loaded again because another release declares the same.
        return dataclasses.replace(prog.desired(params), keeps_release=True)

    return prog, desired


def _prog_pins(params: Params) -> tuple[str, ...]:
    if params.get("pin"):
        return _pin(params, "pin")
    directory = pin_path(params.get("pin_dir") or "")
    return tuple(f"{directory}/{name}" for name in params.get("programs") or (ANY,))


def _prog_maps(params: Params) -> tuple[str, ...]:
    return tuple(pin_path(str(pin)) for pin in (params.get("maps") or {}).values())


def _prog_gives(params: Params) -> tuple[str, ...]:
    in_directory = tuple(f"{pin}/{ANY}" for pin in _pin(params, "pin_maps"))
    return (*_prog_pins(params), *_prog_maps(params), *in_directory)


def _prog_removal(params: Params, gone: Collection[str]) -> dict[str, Any]:
    away = {**params, "state": "absent", "discard_maps": True}
    if not params.get("pin") and params.get("programs"):
        names = [pin.rpartition("/")[2] for pin in _prog_pins(params) if pin in gone]
        whole = len(names) == len(params["programs"])
        return {**away, "programs": names, "discard_maps": whole}
    return away


def _map_pin() -> Found:
    from ..resource import map_pin

    return map_pin, map_pin.desired


def _map_pin_removal(params: Params, _gone: Collection[str]) -> dict[str, Any]:
    return {**params, "state": "absent", "discard_data": True}


def _entries() -> Found:
    from ..resource import map_entries

    return map_entries, map_entries.desired


def _entry(params: Params, entry: Mapping[str, Any]) -> str:
    key = entry.get("key")
    text = key if isinstance(key, str) else json.dumps(key, sort_keys=True, default=str)
    return _words("entry", text, "of", *_pin(params, "map"))


def _entries_identity(params: Params) -> frozenset[str]:
    return frozenset(_entry(params, each) for each in params.get("entries") or ())


def _entries_removal(params: Params, gone: Collection[str]) -> dict[str, Any] | None:
    entries = [each for each in params.get("entries") or () if _entry(params, each) in gone]
    if not entries:
        return None
    return {**params, "state": "absent", "entries": entries, "purge": False}


def _config_file() -> Found:
    from ..resource import config_file

    return config_file, config_file.desired


def _cgroup() -> Found:
    from ..resource import cgroup

    return cgroup, cgroup.desired


def _cgroup_identity(params: Params) -> frozenset[str]:
    where = _words("cgroup", params.get("cgroup"), params.get("attach_type"), *_pin(params, "prog"))
    return frozenset((where, *_links(params)))


def _sockmap() -> Found:
    from ..resource import sockmap

    return sockmap, sockmap.desired


def _sockmap_identity(params: Params) -> frozenset[str]:
    hook = params.get("attach_type") or "sk_msg_verdict"
    return frozenset((_words("sockmap", *_pin(params, "map"), hook), *_links(params)))


def _tc() -> Found:
    from ..resource import tc

    return tc, tc.desired


def _tc_identity(params: Params) -> frozenset[str]:
    where = _words("tc", params.get("netns"), params.get("interface"), params.get("direction"))
    return frozenset((_words(where, *_pin(params, "prog")), *_links(params)))


def _xdp() -> Found:
    from ..resource import xdp

    return xdp, xdp.desired


def _xdp_identity(params: Params) -> frozenset[str]:
    where = _words("xdp", params.get("netns"), params.get("interface"), *_pin(params, "prog"))
    return frozenset((where, *_links(params)))


def _links(params: Params) -> tuple[str, ...]:
    return tuple(f"link {pin}" for pin in _pin(params, "link"))


def _backend() -> Found:
    from ..xdp_lb import backend

    return backend, backend.desired


def _services() -> Found:
    from ..xdp_lb import model, services

    return services, model.desired


def _services_brief(desired: Any) -> dict[str, Any]:
    """The names and what moved. Rings and backends of a thousand servers fill a result, and take
    longer to tell than all else that an unchanged host is asked."""
    names = [service.name for service in desired.services]
    return {"services": names, "slots_moved": sum((desired.memory.moved or {}).values())}


def _services_dir(params: Params) -> str:
    return pin_path(params.get("pin_dir") or "xdp_lb")


ADAPTERS: Mapping[str, Adapter] = {
    "bpffs": Adapter(_bpffs, 0, lambda params: frozenset((f"bpffs {params.get('path')}",))),
    "bpf_prog": Adapter(
        _prog,
        10,
        lambda params: frozenset(_prog_pins(params)),
        after=_prog_maps,
        gives=_prog_gives,
        removal=_prog_removal,
        divisible=True,
        staged=True,
        hook=True,
    ),
    "bpf_map_pin": Adapter(
        _map_pin,
        10,
        lambda params: frozenset(f"map {pin}" for pin in _pin(params, "pin")),
        needs=lambda params: _pin(params, "prog"),
        gives=lambda params: _pin(params, "pin"),
        removal=_map_pin_removal,
        staged=True,
    ),
    "config_file": Adapter(
        _config_file,
        20,
        lambda params: frozenset((f"file {params.get('path')}",)),
        removal=_absent,
    ),
    "bpf_map_entries": Adapter(
        _entries,
        20,
        _entries_identity,
        needs=lambda params: _pin(params, "map"),
        removal=_entries_removal,
        divisible=True,
    ),
    "xdp_lb_services": Adapter(
        _services,
        20,
        lambda params: frozenset((f"services {_services_dir(params)}",)),
        needs=lambda params: tuple(
            f"{_services_dir(params)}/{name}" for name in ("maglev", "maps/services4")
        ),
        removal=_absent,
        brief=_services_brief,
    ),
    "bpf_test_run": Adapter(None, 30, _anonymous, needs=lambda params: _pin(params, "prog")),
    "sockmap_attach": Adapter(
        _sockmap,
        40,
        _sockmap_identity,
        needs=lambda params: _pin(params, "map", "prog"),
        gives=lambda params: _pin(params, "link"),
        removal=_absent,
        hook=True,
    ),
    "tc_attach": Adapter(
        _tc,
        50,
        _tc_identity,
        needs=lambda params: _pin(params, "prog"),
        gives=lambda params: _pin(params, "link"),
        removal=_absent,
        hook=True,
    ),
    "xdp_attach": Adapter(
        _xdp,
        60,
        _xdp_identity,
        needs=lambda params: _pin(params, "prog"),
        gives=lambda params: _pin(params, "link"),
        removal=_absent,
        hook=True,
    ),
    "cgroup_attach": Adapter(
        _cgroup,
        60,
        _cgroup_identity,
        needs=lambda params: _pin(params, "prog"),
        gives=lambda params: _pin(params, "link"),
        removal=_absent,
        hook=True,
    ),
    # Last: the addresses of services draw packets here, which programs may have to unpack.
    "xdp_lb_backend": Adapter(_backend, 70, _the_host, removal=_absent, hook=True),
}
