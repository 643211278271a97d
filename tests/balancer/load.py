# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that never stop asking, and say in the end what went wrong.

Run as `load.py JSON` with: address; requests, sessions, datagrams, uploads: how many of each run at once. Prints
"ready" when each has worked once, goes on until its standard input ends, and prints a report as JSON.

A request is one HTTP connection. A session is one connection for the whole time, a line and its answer at a time. A
datagram is a UDP socket that asks again and again. An upload takes about a second and is compared by its SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

DNS, HTTP, LINES, UPLOADS = 53, 80, 7000, 7001
PATIENCE = 10.0  # seconds until a silent connection counts as failed
LOST = 5.0  # and a datagram
PAUSE = 0.02
UPLOAD_PIECES, UPLOAD_PIECE = 10, 30_000


@dataclass
class Tally:
    """What one kind of client saw. `moved`: answered by another backend than before."""

    done: int = 0
    failed: int = 0
    moved: int = 0
    backends: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def success(self, backend: str) -> None:
        self.done += 1
        self.backends[backend] += 1

    def failure(self, error: object) -> None:
        self.failed += 1
        if len(self.errors) < 5:
            self.errors.append(repr(error))

    def report(self) -> dict[str, object]:
        return {**vars(self), "backends": dict(self.backends)}


@dataclass
class Run:
    address: str
    stop: asyncio.Event
    working: Callable[[], None]


Client = Callable[[Run, Tally], Awaitable[None]]


async def request(run: Run, tally: Tally) -> None:
    first = True
    while not run.stop.is_set():
        try:
            body = await asyncio.wait_for(fetch(run.address), PATIENCE)
            tally.success(body.strip())
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            tally.failure(error)
        else:
            if first:
                run.working()
                first = False
        await asyncio.sleep(PAUSE)


async def fetch(address: str) -> str:
    reader, writer = await asyncio.open_connection(address, HTTP)
    try:
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        head, _blank, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head or not body.endswith(b"\n"):
            raise ValueError(f"not an answer: {answer[:100]!r}")
        return body.decode()
    finally:
        writer.close()


async def session(run: Run, tally: Tally) -> None:
    last = ""
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(run.address, LINES), PATIENCE
        )
        while not run.stop.is_set():
            line = os.urandom(20).hex()
            writer.write(line.encode() + b"\n")
            answer = (await asyncio.wait_for(reader.readline(), PATIENCE)).decode()
            name, _space, said = answer.partition(" ")
            if said.strip() != line:
                raise ValueError(f"sent {line}, was answered {answer!r}")
            tally.moved += bool(last) and name != last
            tally.success(name)
            if not last:
                run.working()
            last = name
            await asyncio.sleep(PAUSE)
        writer.close()
    except (OSError, ValueError, asyncio.TimeoutError) as error:
        tally.failure(error)


async def datagram(run: Run, tally: Tally) -> None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in run.address else socket.AF_INET
    last = ""
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((run.address, DNS))
        while not run.stop.is_set():
            question = os.urandom(20).hex()
            try:
                await loop.sock_sendall(client, question.encode())
                answer = await asyncio.wait_for(loop.sock_recv(client, 2048), LOST)
                name, _space, said = answer.decode().partition(" ")
                if said != question:
                    raise ValueError(f"asked {question}, was answered {answer!r}")
            except (OSError, ValueError, asyncio.TimeoutError) as error:
                tally.failure(error)
            else:
                tally.moved += bool(last) and name != last
                tally.success(name)
                if not last:
                    run.working()
                last = name
            await asyncio.sleep(PAUSE)


async def upload(run: Run, tally: Tally) -> None:
    first = True
    while not run.stop.is_set():
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(run.address, UPLOADS), PATIENCE
            )
            digest = hashlib.sha256()
            for dummy in range(UPLOAD_PIECES):
                piece = os.urandom(UPLOAD_PIECE)
                digest.update(piece)
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), PATIENCE)
                await asyncio.sleep(0.05)
            writer.write_eof()
            name, said = (await asyncio.wait_for(reader.readline(), PATIENCE)).decode().split()
            if said != digest.hexdigest():
                raise ValueError(f"sent {digest.hexdigest()}, {name} received {said}")
            writer.close()
            tally.success(name)
        except (OSError, ValueError, asyncio.TimeoutError) as error:
            tally.failure(error)
        else:
            if first:
                run.working()
                first = False


CLIENTS: dict[str, Client] = {
    "requests": request,
    "sessions": session,
    "datagrams": datagram,
    "uploads": upload,
}


async def main(wanted: dict[str, object]) -> dict[str, object]:
    counts = {kind: int(str(wanted.get(kind, 0))) for kind in CLIENTS}
    working = 0

    def one_more() -> None:
        nonlocal working
        working += 1
        if working == sum(counts.values()):
            print("ready", flush=True)

    run = Run(str(wanted["address"]), asyncio.Event(), one_more)
    tallies = {kind: Tally() for kind, count in counts.items() if count}
    tasks = [
        asyncio.create_task(CLIENTS[kind](run, tallies[kind]))  # type: ignore[arg-type]
        for kind in tallies
        for dummy in range(counts[kind])
    ]
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, sys.stdin.read)
    run.stop.set()
    await asyncio.gather(*tasks)
    return {kind: tally.report() for kind, tally in tallies.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(json.loads(sys.argv[1])))))
