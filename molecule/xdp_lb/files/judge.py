# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether what the client was answered and what the machines have counted agree.

Reads {told, asked, before, after} from standard input. Prints the features that are proved, by
machine; or what is wrong, with status 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

NATIVE = 1
BLOB = 256 << 10  # see server.py
STRAY = 10  # packets that may come between two machines' counting
ONE_REQUEST = 4  # packets of the client: SYN, ACK, what it asks, FIN
REQUESTS, ECHOES = 20, 3  # see client.py
ACTIVE = {"ActiveState": "active", "SubState": "running", "UnitFileState": "enabled"}

Seen = dict[str, Any]


def difference(seen: Seen, host: str, *path: str) -> int:
    """What a counter has gone up by."""
    before, after = seen["before"][host], seen["after"][host]
    for key in path:
        before, after = before[key], after[key]
    return int(after) - int(before)


def answers(seen: Seen) -> Iterator[str]:
    """Every server answered, through every balancer, and got what was sent."""
    told = seen["told"]
    servers = set(told["servers"])
    for balancer, ways in seen["asked"]["answers"].items():
        for way in told["ways"]:
            found, where = ways[way["name"]], f"{way['name']} through {balancer}"
            for kind in ("web", "lines"):
                if set(found[kind]) != servers or sum(found[kind].values()) != REQUESTS:
                    yield f"{where}: {kind} was answered by {found[kind]}"
            who = balancer if way["forwarding"] == "nat" else told["client"]
            expected = told["addresses"][who][":" in way["vip"]]
            if found["client"] != expected:
                yield f"{where}: the server saw {found['client']} and not {who}'s {expected}"
            if not found["uploaded"]:
                yield f"{where}: another body arrived than was sent"
            if found["downloaded"] != BLOB:
                yield f"{where}: {found['downloaded']} of {BLOB} bytes arrived"
            if found["pings"] != ECHOES:
                yield f"{where}: {found['pings']} of {ECHOES} pings were answered"


def balancers(seen: Seen) -> Iterator[str]:
    """Native mode by two witnesses, what was forwarded, and the health service of systemd."""
    told = seen["told"]
    for host in told["balancers"]:
        now = seen["after"][host]
        if now["link"]["mode"] != NATIVE or now["link"]["program"] != "xdp_lb":
            yield f"{host}: {told['interface']} has {now['link']}"
        if not now["native"]:
            yield f"{host}: bpftool net does not call the program native"
        if any(now["health"][key] != value for key, value in ACTIVE.items()):
            yield f"{host}: the health service is {now['health']}"
        if now["vips"]:
            yield f"{host}: a balancer has {', '.join(now['vips'])} itself"
        for service, backends in now["balancer"]["sent"].items():
            for address, backend in backends.items():
                if service.startswith("web") and backend["health"] != "up":
                    yield f"{host}: {service} {address} is {backend['health']}"
        if difference(seen, host, "balancer", "too_big_sent") < 1:
            yield f"{host}: nobody was told that a packet is too big for a tunnel"
        expected = ECHOES * len(told["ways"])
        if difference(seen, host, "balancer", "echo_replied") != expected:
            yield f"{host}: it has not answered {expected} pings"
        stateless = sum(BLOB for way in told["ways"] if way["forwarding"] != "nat")
        translated = sum(BLOB for way in told["ways"] if way["forwarding"] == "nat")
        through = difference(seen, host, "link", "tx_bytes")
        if not translated < through < translated + stateless:
            yield f"{host}: sent {through} bytes, so answers took another way than they should"


def forwarded(seen: Seen, way: Seen, server: str) -> int:
    """Packets that the balancers say they sent to the server."""
    told = seen["told"]
    address = told["addresses"][server][way["address"] == "machine_address6"]
    return sum(
        difference(seen, host, "balancer", "sent", f"{kind}-{way['name']}", address, "packets")
        for host in told["balancers"]
        for kind in ("web", "lines")
    )


def answered(seen: Seen, way: Seen, server: str) -> Counter[str]:
    """How often the server answered, by kind."""
    found: Counter[str] = Counter()
    for ways in seen["asked"]["answers"].values():
        for kind in ("web", "lines"):
            found[kind] += ways[way["name"]][kind].get(server, 0)
    return found


def servers(seen: Seen) -> Iterator[str]:
    """What the servers' kernels counted is what was sent to them, and no less than was answered."""
    told = seen["told"]
    for host in told["servers"]:
        unpacked = 0
        for way in told["ways"]:
            got, sent = difference(seen, host, "counters", way["name"]), forwarded(seen, way, host)
            said = answered(seen, way, host)
            least = said["web"] * ONE_REQUEST + said["lines"]
            if not least <= got <= sent + STRAY:
                yield f"{host}, {way['name']}: {sent} sent, {got} came, {least} needed"
            unpacked += got if way["forwarding"] == "ipip" else 0
        now = seen["after"][host]
        devices = sum(difference(seen, host, "tunnels", name) for name in now["tunnels"])
        if len(now["tunnels"]) != 2 or abs(devices - unpacked) > STRAY:
            yield f"{host}: {now['tunnels']} have unpacked {devices} packets of {unpacked}"
        wanted = sorted(way["vip"] for way in told["ways"] if way["forwarding"] != "nat")
        if now["vips"] != wanted:
            yield f"{host}: has {now['vips']} of {wanted}"
        expected = {"arp_ignore": 1, "arp_announce": 2, "rp_filter": 2, "forwarding": 0}
        if now["sysctls"] != expected:
            yield f"{host}: {told['interface']} has {now['sysctls']} and not {expected}"


def silence(seen: Seen) -> Iterator[str]:
    """Nobody answers ARP for a service's address; for one that a machine has, that machine does."""
    vips = {way["vip"] for way in seen["told"]["ways"]}
    for address, count in seen["asked"]["arp"].items():
        if count != (address not in vips):
            yield f"{count} machines answered ARP for {address}"


def features(seen: Seen) -> dict[str, dict[str, str]]:
    """What is proved by now, of each machine, as the support table has it."""
    told = seen["told"]
    balances = {
        "xdp_lb_nat": "native",
        "xdp_lb_dsr": "native",
        "xdp_lb_ipip": "native",
        "xdp_lb_health": "systemd",
    }
    return {
        **dict.fromkeys(told["balancers"], balances),
        **{host: {"xdp_lb_server": "tunnel devices"} for host in told["servers"]},
    }


def main() -> int:
    seen = json.load(sys.stdin)
    wrong = [fault for check in (answers, balancers, servers, silence) for fault in check(seen)]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    print(json.dumps(features(seen)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
