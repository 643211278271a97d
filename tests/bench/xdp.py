# SPDX-License-Identifier: GPL-3.0-or-later
"""The XDP load balancer against floors and against other balancers: interleaved, medians, targets.

    xdp.py [--only packets|requests|wire] [--rows SUBSTRING] [--rounds N]

Exits 1 when a target is missed, 2 when something needed is not there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import environment
import table
from table import Row, Target

HERE = Path(__file__).resolve().parent
HASH = HERE.parents[1] / "bpf/xdp_lb"
sys.path.insert(0, str(HERE.parent / "balancer"))

import balancer  # noqa: E402
import servers  # noqa: E402
import topology  # noqa: E402
import xdp_micro  # noqa: E402
import xdp_web  # noqa: E402
import xdp_wire  # noqa: E402

VIPS = {
    ("nat", 4): "192.0.2.10",
    ("dsr", 4): "192.0.2.20",
    ("ipip", 4): "192.0.2.30",
    ("nat", 6): "2001:db8:1::10",
    ("dsr", 6): "2001:db8:1::20",
    ("ipip", 6): "2001:db8:1::30",
}
STATELESS = Target(1 / 1.6, "floor/ours")
TRANSLATED = Target(1 / 3, "floor/ours")
FOREIGN = Target(1 / 2, "floor/ours")
FLAT = Target(1 / 1.25, "1 flow/many")
# Against talking to the backends directly.
DIRECT = {"dsr": 0.95, "nat": 0.9}
FLOOR_VIP = "192.0.2.40"
AHEAD = 1.0
REFLECTION = Target(0.85, "pps/reflection")
TRANSLATION = Target(3.6, "pps/nftables")
STEADY = Target(0.9, "SYNs/steady")

Measure = Callable[[], float]


@dataclass(frozen=True)
class Work:
    """A row before it is measured: what prepares it, and what each variant's figure is."""

    name: str
    target: Target | None
    variants: dict[str, Measure]
    unit: str = "ns"


def declared(backends: Sequence[topology.Node]) -> list[balancer.Service]:
    """One service for each way of forwarding and family, all on the same backends."""
    return [
        balancer.service(
            f"{forwarding}{family}",
            vip,
            forwarding,
            [{"address": node.address(family)} for node in backends],
        )
        for (forwarding, family), vip in VIPS.items()
    ]


def micro(
    bench: xdp_micro.Harness, at: balancer.Balancer, network: topology.Topology
) -> list[Work]:
    """Nanoseconds a packet, each kind of forwarding against the least that could be done."""
    works = []
    established: set[tuple[int, int]] = set()

    def ours(forwarding: str, family: int, count: int, program: str) -> Measure:
        def measure() -> float:
            vip, node = VIPS[forwarding, family], at.node
            who = xdp_micro.flows(count)
            packet = xdp_micro.tcp(at, xdp_micro.NOBODY[family], vip, 0)
            bench.stage(packet, family, who)
            links = [aimed_link(backend, node) for backend in network.backends]
            backends = [backend.address(family) for backend in network.backends]
            bench.aim(vip, node.address(family), backends, links)
            if forwarding == "nat" and program == "ours" and (family, count) not in established:
                xdp_micro.establish(bench, at, vip, node.address(family), who)
                established.add((family, count))
            return bench.ns(program, packet)

        return measure

    for (forwarding, family), floor in xdp_micro.FLOORS.items():
        target = TRANSLATED if forwarding == "nat" else STATELESS
        for count, label in ((1, "1 flow"), (xdp_micro.MANY, "64k flows")):
            variants = {
                "floor": ours(forwarding, family, count, floor),
                "ours": ours(forwarding, family, count, "ours"),
            }
            held = target if count > 1 else None
            works.append(Work(f"{forwarding} IPv{family}, {label}", held, variants))
        if forwarding != "nat" and family == 4:
            for count, label in ((xdp_micro.MANY, "64k"), (xdp_micro.MOST, "1M")):
                variants = {
                    "1 flow": ours(forwarding, family, 1, "ours"),
                    "ours": ours(forwarding, family, count, "ours"),
                }
                works.append(Work(f"{forwarding} IPv{family}, 1 and {label} flows", FLAT, variants))
    for name, packet in xdp_micro.foreign(at).items():
        variants = {
            "floor": lambda packet=packet: bench.bare_ns("floor_pass", packet),
            "ours": lambda packet=packet: bench.bare_ns("ours", packet),
        }
        works.append(Work(f"foreign, {name}", FOREIGN, variants))
    return works


def know_neighbours(node: topology.Node, network: topology.Topology) -> None:
    """Test runs send nothing: the kernel would forget neighbours that nobody seems to use."""
    node.ip(
        *(
            f"neigh replace {box.address(family)} lladdr {box.mac} dev eth0 nud permanent"
            for box in (*network.backends, network.router)
            for family in (4, 6)
        )
    )


def aimed_link(backend: topology.Node, node: topology.Node) -> bytes:
    """Destination and source of frames to the backend."""
    return bytes.fromhex((backend.mac + node.mac).replace(":", ""))


def measured(work: Work, rounds: int) -> Row:
    """The work's row: so many figures of each variant, in turn, the first one changing."""
    figures: dict[str, list[float]] = {name: [] for name in work.variants}
    for turn in range(rounds):
        order = list(work.variants.items())
        for name, measure in order if turn % 2 == 0 else reversed(order):
            figures[name].append(measure())
    return Row(work.name, work.unit, work.unit == "ns", figures, {}, work.target)


def on_the_wire(
    bench: xdp_micro.Harness, at: balancer.Balancer, network: topology.Topology
) -> list[Work]:
    """Packets a second of everything on one CPU, against sending them back and against nftables."""
    many, most = xdp_micro.flows(xdp_micro.MANY), xdp_micro.flows(xdp_micro.MOST)

    def ours(way: str, who: list[xdp_micro.Flow], flags: str = xdp_micro.ACK) -> Measure:
        return xdp_wire.through(bench, network, at, VIPS[way, 4], who, flags)

    reflected = xdp_wire.past(bench, network, "floor_reflect", many)
    translated = xdp_wire.past(bench, network, "floor_pass", many)
    dropped = xdp_wire.past(bench, network, "floor_drop", many)
    syns = {"steady": ours("dsr", many), "ours": ours("dsr", most, xdp_micro.SYN)}
    rows: list[tuple[str, Target | None, dict[str, Measure]]] = [
        ("reflection, drop", None, {"drop": dropped, "reflect": reflected}),
        ("dsr, reflection", REFLECTION, {"reflect": reflected, "ours": ours("dsr", many)}),
        ("dsr, nftables DNAT", TRANSLATION, {"nftables": translated, "ours": ours("dsr", many)}),
        ("ipip, nftables DNAT", None, {"nftables": translated, "ours": ours("ipip", many)}),
        ("dsr, unique SYNs", STEADY, syns),
    ]
    return [Work(f"wire: {name}", target, variants, "Mpkt/s") for name, target, variants in rows]


@contextmanager
def least(
    bench: xdp_micro.Harness, network: topology.Topology, behind: Sequence[topology.Node]
) -> Iterator[None]:
    """The floor of dsr in the place of a balancer, for FLOOR_VIP."""
    node = network.balancers[1]
    twice = [*behind, *behind]
    links = [aimed_link(backend, node) for backend in twice]
    bench.aim(FLOOR_VIP, node.ipv4, [backend.ipv4 for backend in twice], links)
    with (
        xdp_wire.attached(bench, "floor_pass", network.router, node.name),
        xdp_wire.attached(bench, "floor_dsr4", node, "eth0"),
    ):
        yield


def asked(
    bench: xdp_micro.Harness,
    at: balancer.Balancer,
    network: topology.Topology,
    scratch: Path,
    rounds: int,
) -> list[Row]:
    """HTTP through every balancer in turn, and ours against each of the others.

    All of them have as many backends as there are clients, each of which then has one for itself
    when there is no balancer: more servers on the same CPUs would be slower for that alone.
    """
    behind = network.backends[: len(network.clients)]
    at.declare(declared(behind))
    ways = tuple(forwarding for forwarding, family in VIPS if family == 4)
    with ExitStack() as stack:
        stack.enter_context(servers.serving(network, scratch / "backends"))
        urls = stack.enter_context(xdp_web.proxies(network, behind, scratch))
        direct = [f"http://{node.ipv4}/" for node in behind]
        urls |= {"direct": tuple(direct)}
        for way in ways:
            vip = VIPS[way, 4]
            network.route(vip, network.balancers[0])
            urls[way] = (f"http://{vip}/",) * 2
            if way != "nat":
                stack.enter_context(network.hosted(vip, behind))
        network.route(FLOOR_VIP, network.balancers[1])
        stack.enter_context(network.hosted(FLOOR_VIP, behind))
        urls["floor"] = (f"http://{FLOOR_VIP}/",) * 2
        seen: dict[str, list[xdp_web.Figures]] = {name: [] for name in urls}
        for turn in range(rounds):
            order = list(urls.items())
            for name, both in order if turn % 2 == 0 else reversed(order):
                with least(bench, network, behind) if name == "floor" else nullcontext():
                    seen[name].append(xdp_web.wrk(network.clients, both))
    rows = [row for way in ways for row in compared(way, seen)]
    for row in rows:
        print("\n".join(table.lines(row)), flush=True)
    return rows


def compared(way: str, seen: dict[str, list[xdp_web.Figures]]) -> list[Row]:
    """One way of forwarding against each of the others: requests a second, CPU and p99 a request."""
    rows = []
    for other in ("direct", *xdp_web.PROXY_PORT, "nftables"):
        pair = {other: seen[other], "ours": seen[way]}
        if other == "direct" and way != "nat":  # through which answers come back, too
            pair["floor"] = seen["floor"]
        rate, cpu, p99 = (
            {name: [getattr(one, of) for one in values] for name, values in pair.items()}
            for of in ("rate", "cpu", "p99")
        )
        least = DIRECT.get(way) if other == "direct" else AHEAD
        target = Target(least, "requests/s") if least else None
        rows.append(Row(f"{way}, requests", "req/s", False, rate, {}, target))
        target = None if other == "direct" else Target(AHEAD, "CPU")
        rows.append(Row(f"{way}, CPU a request", "us", True, cpu, {}, target))
        rows.append(Row(f"{way}, p99", "us", True, p99, {}, None))
    return rows


def shown(works: list[Work], options: argparse.Namespace) -> list[Row]:
    """The rows that were asked for, each printed as soon as it is measured."""
    rows = []
    for work in works:
        if options.rows in work.name:
            rows.append(measured(work, options.rounds))
            print("\n".join(table.lines(rows[-1])), flush=True)
    return rows


def arguments() -> argparse.Namespace:
    """What to measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=("packets", "requests", "wire"), help="one part")
    parser.add_argument(
        "--rows", default="", help="of packets and wire, only rows whose name contains this"
    )
    parser.add_argument("--rounds", type=int, default=5, help="figures of each variant")
    return parser.parse_args()


def compiled(where: Path) -> Path:
    """The floors, built."""
    built = where / "xdp_floor.bpf.o"
    include = f"/usr/include/{environment.call('cc', '-print-multiarch').strip()}"
    flags = ["-g", "-O2", "-target", "bpf", "-mcpu=v2", f"-I{HASH}", "-idirafter", include]
    environment.call("clang", *flags, "-c", str(HERE / "xdp_floor.bpf.c"), "-o", str(built))
    return built


def main() -> int:
    """Set everything up, measure, print, take everything down."""
    options = arguments()
    if missing := xdp_web.tools():
        sys.stderr.write(f"not installed: {' '.join(missing)}\n")
        return 2
    environment.become_private()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    environment.call("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    rows: list[Row] = []
    with ExitStack() as stack:
        scratch = stack.enter_context(environment.scratch())
        network = stack.enter_context(topology.network(balancers=2))
        at = stack.enter_context(balancer.running(network.balancers[0]))
        for node in network.balancers:
            know_neighbours(node, network)
        at.sources = {"ipv4": at.node.ipv4, "ipv6": at.node.ipv6}
        at.declare(declared(network.backends))
        began = time.monotonic()
        print(table.HEADER, flush=True)
        bench = stack.enter_context(xdp_micro.harness(compiled(scratch), at))
        if options.only in (None, "packets"):
            with topology.entered(at.node.netns):
                rows += shown(micro(bench, at, network), options)
        if options.only in (None, "requests"):
            rows += asked(bench, at, network, scratch, options.rounds)
        if options.only in (None, "wire"):
            at.declare(declared(network.backends))
            xdp_web.translate(network, network.backends, scratch)
            stack.enter_context(xdp_wire.wires(bench, network))
            rows += shown(on_the_wire(bench, at, network), options)
        print(f"{time.monotonic() - began:.0f} s")
    table.keep(rows, "The load balancer against floors, nginx, HAProxy and nftables.")
    print(table.verdict(rows))
    return 0 if table.all_held(rows) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
