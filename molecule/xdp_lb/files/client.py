# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client of the load balancer does. Needs Python 3.9 alone, curl and ping.

client.py ask TOLD       asks every way of forwarding, through each balancer; prints the answers
client.py takeover TOLD  the route moves to the other balancer and back, with connections open
client.py until TOLD     waits until all of told["answering"] answer, and nobody else, through each

The balancers' addresses lead where this host's route to the services' networks leads.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

WEB, LINES = 8000, 5300
NETWORKS = ("192.0.2.0/24", "2001:db8:77::/64")
REQUESTS = 20  # that all go to one of two servers: twice in a million
UPLOAD = 96 << 10  # bytes
ATTEMPTS = 5  # of a datagram
SESSIONS = 3  # for each way
SECONDS = 20.0  # for whatever takes one exchange
PATIENCE = 180.0
ETHERTYPE_ARP = 0x0806

Told = dict[str, Any]


def run(*words: str) -> str:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def lead_to(told: Told, balancer: str) -> None:
    """From now on that balancer gets what goes to the services."""
    for network, gateway in zip(NETWORKS, told["addresses"][balancer]):
        run("ip", "route", "replace", network, "via", gateway, "dev", told["interface"])


def forget_sizes() -> None:
    """What routers have said of the paths' packet sizes is asked anew."""
    for family in ("-4", "-6"):
        run("ip", family, "route", "flush", "cache")


def url(vip: str, path: str) -> str:
    return f"http://[{vip}]:{WEB}{path}" if ":" in vip else f"http://{vip}:{WEB}{path}"


def curl(vip: str, path: str, *more: str) -> str:
    options = ("--silent", "--show-error", "--fail", "--globoff", "--max-time", str(6 * SECONDS))
    return run("curl", *options, *more, url(vip, path))


def family_of(vip: str) -> int:
    return socket.AF_INET6 if ":" in vip else socket.AF_INET


def line(made: socket.socket, question: bytes) -> str:
    """Who answers a datagram, which may get lost like any other."""
    made.settimeout(SECONDS / ATTEMPTS)
    for _attempt in range(ATTEMPTS):
        made.send(question)
        try:
            while True:
                name, _space, said = made.recv(2048).partition(b" ")
                if said == question:
                    return name.decode()
        except socket.timeout:
            continue
    sys.exit(f"no answer to {question.decode()}")


@contextlib.contextmanager
def datagrams(vip: str) -> Iterator[socket.socket]:
    with socket.socket(family_of(vip), socket.SOCK_DGRAM) as made:
        made.connect((vip, LINES))
        yield made


def ask(told: Told) -> None:
    found = {}
    for balancer in told["balancers"]:
        lead_to(told, balancer)
        forget_sizes()
        found[balancer] = {way["name"]: ask_way(way["vip"]) for way in told["ways"]}
    owned = told["addresses"][told["servers"][0]][0]
    asked = [*(way["vip"] for way in told["ways"] if ":" not in way["vip"]), owned]
    print(json.dumps({"answers": found, "arp": arp(told, asked)}))


def ask_way(vip: str) -> dict[str, Any]:
    """Web servers by name, those of datagrams, whom the server sees, what arrives, and pings."""
    many = [url(vip, "/") for _each in range(REQUESTS - 1)]
    web = Counter(curl(vip, "/", "--header", "Connection: close", *many).split())
    lines: Counter[str] = Counter()
    for number in range(REQUESTS):
        with datagrams(vip) as made:
            lines[line(made, b"question %d" % number)] += 1
    head = curl(vip, "/", "--dump-header", "-", "--output", "/dev/null")
    seen = re.search(r"(?im)^X-Client: (\S+)", head)
    return {
        "web": web,
        "lines": lines,
        "client": seen[1] if seen else "",
        "uploaded": upload(vip),
        "downloaded": download(vip),
        "pings": pings(vip),
    }


def upload(vip: str) -> bool:
    """Whether the server has got what was sent, in packets as large as the path takes."""
    body = os.urandom(UPLOAD)
    connection = http.client.HTTPConnection(vip, WEB, timeout=6 * SECONDS)
    connection.request("POST", "/digest", body)
    answer = connection.getresponse().read()
    connection.close()
    return answer.decode() == hashlib.sha256(body).hexdigest()


def download(vip: str) -> int:
    """How many bytes arrive of what the server sends, all of them right."""
    connection = http.client.HTTPConnection(vip, WEB, timeout=6 * SECONDS)
    connection.request("GET", "/blob")
    body = connection.getresponse().read()
    connection.close()
    return len(body) if body == bytes(range(256)) * (len(body) // 256) else 0


def pings(vip: str) -> int:
    said = run("ping", "-q", "-c", "3", "-i", "0.3", "-W", str(int(SECONDS)), vip)
    found = re.search(r"(\d+) received", said)
    return int(found[1]) if found else 0


def arp(told: Told, addresses: list[str]) -> dict[str, int]:
    """How many machines say that they have each IPv4 address; the last is one that one has."""
    found = {address: set[bytes]() for address in addresses}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP)) as made:
        made.bind((told["interface"], ETHERTYPE_ARP))
        own = made.getsockname()[4]
        source = socket.inet_aton(told["addresses"][told["client"]][0])
        head = b"\xff" * 6 + own + struct.pack("!HHHBBH", ETHERTYPE_ARP, 1, 0x0800, 6, 4, 1)
        for address in addresses:
            made.send(head + own + source + bytes(6) + socket.inet_aton(address))
        deadline = time.monotonic() + SECONDS
        while (left := deadline - time.monotonic()) > 0:
            made.settimeout(left)
            try:
                packet = made.recv(128)
            except socket.timeout:
                break
            address = socket.inet_ntoa(packet[28:32])
            if packet[20:22] == b"\0\2" and address in found:
                found[address].add(packet[22:28])
                if address == addresses[-1]:  # what came before it has been answered, or is soon
                    deadline = min(deadline, time.monotonic() + 2)
    return {address: len(answers) for address, answers in found.items()}


class Session:
    """An HTTP connection that stays."""

    def __init__(self, vip: str) -> None:
        self.connection = http.client.HTTPConnection(vip, WEB, timeout=3 * SECONDS)
        self.connection.connect()
        self.end = self.connection.sock.getsockname()

    def ask(self) -> str:
        """Who answers. Never over another connection."""
        self.connection.request("GET", "/")
        name = self.connection.getresponse().read().decode().strip()
        if self.connection.sock is None or self.connection.sock.getsockname() != self.end:
            sys.exit("the connection was closed")
        return name


def takeover(told: Told) -> None:
    """Connections of the ways that keep no table survive, and go on to the same server."""
    first, second = told["balancers"]
    lead_to(told, first)
    stateless = [way for way in told["ways"] if way["forwarding"] != "nat"]
    with contextlib.ExitStack() as stack:
        sessions = [(way, Session(way["vip"])) for way in stateless for _each in range(SESSIONS)]
        sockets = [
            (way, stack.enter_context(datagrams(way["vip"])))
            for way in stateless
            for _each in range(SESSIONS)
        ]

        def all_of_them() -> list[tuple[str, str]]:
            return [
                *((way["name"], session.ask()) for way, session in sessions),
                *((way["name"], line(made, b"still")) for way, made in sockets),
            ]

        before = all_of_them()
        for balancer in (second, first):
            lead_to(told, balancer)
            now = all_of_them()
            moved = [f"{was} to {name}" for was, name in zip(before, now) if was != name]
            if moved:
                sys.exit(f"{len(moved)} have moved with {balancer}: {', '.join(moved)}")
            for way in told["ways"]:  # new ones work, with nat too
                curl(way["vip"], "/")
    print(f"{len(before)} connections and flows were kept")


def until(told: Told) -> None:
    """The health checks have taken out who does not answer, and have put back who does."""
    wanted = set(told["answering"])
    deadline = time.monotonic() + PATIENCE
    for balancer in told["balancers"]:
        lead_to(told, balancer)
        while (found := answering(told)) != dict.fromkeys(found, wanted):
            if time.monotonic() > deadline:
                shown = {way: sorted(names) for way, names in found.items()}
                sys.exit(f"through {balancer} not only and all of {sorted(wanted)} answer: {shown}")
            time.sleep(1)


def answering(told: Told) -> dict[str, set[str]]:
    """Who answers for each way of forwarding; "" is somebody who does not."""
    found: dict[str, set[str]] = {}
    for way in told["ways"]:
        names = found[way["name"]] = set()
        for _each in range(REQUESTS):
            try:
                connection = http.client.HTTPConnection(way["vip"], WEB, timeout=3)
                connection.request("GET", "/")
                names.add(connection.getresponse().read().decode().strip())
                connection.close()
            except (OSError, http.client.HTTPException):
                names.add("")
                break
    return found


if __name__ == "__main__":
    {"ask": ask, "takeover": takeover, "until": until}[sys.argv[1]](json.loads(sys.argv[2]))
