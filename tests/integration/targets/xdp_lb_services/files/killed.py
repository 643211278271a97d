# SPDX-License-Identifier: GPL-3.0-or-later
"""killed.py NETNS: kills a run before its first write, its second and so on; the next run converges."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import maps
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import engine
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import model, services, tables

WEB = {
    "name": "web",
    "vip": "192.0.2.10",
    "port": "80",
    "protocol": "tcp",
    "forwarding": "ipip",
    "backends": [{"address": "10.77.0.11"}, {"address": "10.77.0.12"}],
}
OTHER = {
    "name": "other",
    "vip": "192.0.2.11",
    "port": "any",
    "protocol": "udp",
    "forwarding": "nat",
    "backends": [{"address": "10.77.0.13"}],
}
MOVED = {
    **WEB,
    "port": "81",
    "backends": [{"address": "10.77.0.11", "state": "disabled"}, {"address": "10.77.0.13"}],
}


def declared(*wanted: dict[str, Any]) -> model.Desired:
    sources = {"ipv4": "10.77.0.1"}
    params = {"state": "present", "pin_dir": "it_lbs", "netns": sys.argv[1], "sources": sources}
    return model.desired({**params, "services": list(wanted)})


def converge(*wanted: dict[str, Any]) -> engine.Outcome:
    return engine.converge(services, declared(*wanted), False)


def killed_before(number: int, *wanted: dict[str, Any]) -> bool:
    """Converge in a child that ends itself before that write; False when it made fewer."""
    child = os.fork()
    if child == 0:
        left = [number]

        def counted(write: Any) -> Any:
            def wrapped(*arguments: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return write(*arguments)

            return wrapped

        # Writes to the computing program's maps are the run's own and come before; they count, too.
        maps.update, maps.delete = counted(maps.update), counted(maps.delete)
        maps.update_all = counted(maps.update_all)
        converge(*wanted)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"the run ended with status {status}")
    return False


def check(*wanted: dict[str, Any]) -> None:
    """The next run converges, and the one after it has nothing to do."""
    converge(*wanted)
    again = converge(*wanted)
    if again.changed:
        raise SystemExit(f"the second run changed something: {again.actions}")
    with tables.opened(declared().pin_dir) as found:
        now = tables.read(found)
    names = sorted(each["name"] for each in wanted)
    backends = sum(len(each["backends"]) for each in wanted)
    if (
        sorted(now.names.values()) != names
        or len(now.backends) != backends
        or len(now.rings) != len(names)
    ):
        raise SystemExit(f"something was left: {now.names} {now.backends} {list(now.rings)}")


def main() -> None:
    """Each way from one declaration to another, killed everywhere."""
    ways = [
        ((), (WEB, OTHER)),
        ((WEB, OTHER), (MOVED,)),
        ((MOVED,), (WEB, OTHER)),
        ((WEB, OTHER), ()),
    ]
    for before, after in ways:
        number = 1
        while True:
            converge(*before)
            if not killed_before(number, *after):
                break
            print("killed before write", number, "from", len(before), "to", len(after), "services")
            check(*after)
            number += 1


if __name__ == "__main__":
    main()
