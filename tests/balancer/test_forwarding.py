# SPDX-License-Identifier: GPL-3.0-or-later
"""Every mode of forwarding, both families: all clients reach all backends, byte for byte, the way the mode says."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import clients
import pytest
from balancer import Balancer, bpftool, service
from scenario import DSR4, NAT4, NAT6, ONE_EACH, Mode, Scenario, members, scenario
from servers import Server
from topology import Topology

Quiet = Callable[[], AbstractContextManager[None]]
BODY = 4 << 20
NATIVE, GENERIC = 1, 2  # XDP_ATTACHED_DRV, XDP_ATTACHED_SKB of linux/if_link.h
CURLS = 40  # of a client: that all miss one of four backends happens once in 25,000 times
FIRST_PORT = 20000  # of those that a client asks from over UDP


def connections(balancer: Balancer) -> dict[str, int]:
    """What the data plane says that it gave each backend, by service and backend id."""
    return {
        str(entry["key"]): sum(int(cpu["value"]["connections"]) for cpu in entry["values"])
        for entry in balancer.dump("backend_counters")
        if any(int(cpu["value"]["connections"]) for cpu in entry["values"])
    }


def test_every_backend_answers_every_client(at_work: Scenario, no_resets: Quiet) -> None:
    """curl and DNS from two clients; the balancer's own count of connections is that of the clients."""
    balancer, vip = at_work.balancer, at_work.vip
    assert balancer.program()["mode"] == NATIVE
    before = sum(connections(balancer).values())
    answered: Counter[str] = Counter()
    named: set[str] = set()
    with no_resets():
        for client in at_work.network.clients:
            answered.update(clients.curl(client, vip).strip() for dummy in range(CURLS))
            for number in range(CURLS):
                question = f"name {number}".encode()
                # A port of its own each: the balancer counts the same one as the same flow.
                answer = clients.ask(client, vip, question, port=FIRST_PORT + number)
                name, said = answer.split(b" ", 1)
                assert said == question
                named.add(name.decode())
    assert set(answered) == named == at_work.names
    counted = sum(connections(balancer).values()) - before
    assert counted == 2 * CURLS * (2 if at_work.mode.translates else 1)


def test_bodies(
    at_work: Scenario, backends: tuple[Server, ...], tmp_path: Path, no_resets: Quiet
) -> None:
    """An upload and a download of 4 MiB arrive whole; the answers pass the balancer only with nat."""
    body = os.urandom(BODY)
    (tmp_path / "body").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    lb, client, vip = at_work.balancer.node, at_work.client, at_work.vip
    with no_resets():
        clients.curl(client, vip, "/put/body", "-T", str(tmp_path / "body"))
        stored = [server for server in backends if (server.www / "put/body").exists()]
        assert len(stored) == 1
        received = (stored[0].www / "put/body").read_bytes()
        assert hashlib.sha256(received).hexdigest() == digest
        for server in backends:
            (server.www / "put/body").write_bytes(body)
        before = lb.interface()
        path = tmp_path / "back"
        clients.curl(client, vip, "/put/body", "-o", str(path))
        after = lb.interface()
    assert path.read_bytes() == body
    through = after["rx_bytes"] - before["rx_bytes"]
    assert (through > BODY) if at_work.mode.translates else (through < BODY // 5)
    for server in backends:
        (server.www / "put/body").unlink()


def test_who_the_backend_sees(at_work: Scenario) -> None:
    """The client itself with dsr and ipip, the balancer with nat."""
    head = clients.curl(at_work.client, at_work.vip, "/", "-D", "-", "-o", "/dev/null")
    seen = next(line.split()[1] for line in head.splitlines() if line.startswith("X-Client:"))
    family = at_work.mode.family
    sources = at_work.balancer.sources
    who = sources[f"ipv{family}"] if at_work.mode.translates else at_work.client.address(family)
    assert seen == who


def test_under_load(at_work: Scenario, no_resets: Quiet) -> None:
    """wrk beside short and long connections, datagrams and uploads: nothing fails, nothing is reset."""
    with no_resets():
        with clients.load(
            at_work.client, at_work.vip, requests=4, sessions=20, datagrams=8, uploads=2
        ) as report:
            measured = clients.wrk(at_work.network.clients[1], at_work.vip, 1)
    report.assert_clean()
    assert measured.errors == ""
    assert measured.requests > 50
    assert set(report.backends("requests")) == at_work.names


def test_echo(at_work: Scenario) -> None:
    """The balancer itself answers pings to the address, short and long."""
    before = at_work.balancer.reasons()["ECHO_REPLIED"]
    assert clients.echoes(at_work.client, at_work.vip, count=3) == 3
    assert clients.echoes(at_work.client, at_work.vip, 1400, count=2) == 2
    assert at_work.balancer.reasons()["ECHO_REPLIED"] == before + 5


def test_nothing_answers_without_the_balancer(at_work: Scenario) -> None:
    """The control: with the program detached, and again attached."""
    assert clients.answers(at_work.client, at_work.vip)
    at_work.balancer.detach()
    assert at_work.balancer.program()["id"] is None
    assert not clients.answers(at_work.client, at_work.vip, seconds=0.3)
    at_work.balancer.attach()
    assert clients.answers(at_work.client, at_work.vip)


@pytest.mark.parametrize("mode", ONE_EACH, ids=str)
def test_generic_mode(
    mode: Mode, network: Topology, backends: tuple[Server, ...], no_resets: Quiet
) -> None:
    """On an interface whose driver has no XDP of its own."""
    with scenario(mode, network) as at_work:
        at_work.balancer.detach()
        at_work.balancer.attach(mode="generic")
        assert at_work.balancer.program()["mode"] == GENERIC
        with no_resets():
            with clients.load(
                at_work.client, at_work.vip, requests=4, sessions=20, datagrams=4, uploads=1
            ) as report:
                pass
        report.assert_clean()


def test_affinity_by_source(network: Topology, backends: tuple[Server, ...]) -> None:
    """All connections of one client go to one backend when the service says so."""

    with scenario(DSR4, network) as at_work:
        services = [{**each, "affinity": "source"} for each in at_work.services(at_work.all())]
        at_work.balancer.declare(services)
        answered = {clients.curl(at_work.client, at_work.vip) for dummy in range(12)}
        assert len(answered) == 1


def test_ports_of_backends(network: Topology, backends: tuple[Server, ...]) -> None:
    """With nat a backend may listen on another port than the clients use."""

    for mode in (NAT4, NAT6):
        with scenario(mode, network) as at_work:
            web = service("web", at_work.vip, "nat", at_work.all(port=8080), port=443)
            at_work.balancer.declare([web])
            answered = {
                clients.curl(at_work.client, at_work.vip, port=443).strip()
                for dummy in range(CURLS)
            }
            assert answered == at_work.names


def test_any_port(network: Topology, backends: tuple[Server, ...]) -> None:
    """A service on every port, beside one on a port of its own."""

    with scenario(DSR4, network) as at_work:
        first, *others = network.backends
        at_work.balancer.declare(
            [
                service("all", at_work.vip, "dsr", members(DSR4, others), port="any"),
                service("one", at_work.vip, "dsr", members(DSR4, [first]), port=8080),
            ]
        )
        some = {clients.curl(at_work.client, at_work.vip).strip() for dummy in range(CURLS)}
        assert some == {node.name for node in others}
        assert clients.curl(at_work.client, at_work.vip, port=8080).strip() == first.name


def test_bpftool_sees_what_is_declared(at_work: Scenario) -> None:
    """The witness: our program at the interface, held by a link, with its provenance."""
    shown = bpftool("prog", "show", "pinned", at_work.balancer.pins / "xdp_lb")
    assert shown["id"] == at_work.balancer.program()["id"]
    assert (
        bpftool("link", "show", "pinned", at_work.balancer.pins / "link")["prog_id"] == shown["id"]
    )
