# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backend offers besides nginx. Run as `service.py NAME`; prints "ready", then serves until it is killed.

What datagrams answer, molecule/xdp_lb has on its machines, too.

UDP 53      a question is answered by the backend's name and the question, from the address it was sent to
TCP 7000    every line is answered by the backend's name and the line: for connections that live long
TCP 7001    reads until the client has sent all, then answers the backend's name and the data's SHA-256
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
import sys
import threading

DNS, LINES, UPLOADS = 53, 7000, 7001
IP_PKTINFO = 8  # linux/in.h
ANCILLARY = 128


async def lines(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(name + b" " + line)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def upload(name: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    digest = hashlib.sha256()
    try:
        while data := await reader.read(1 << 16):
            digest.update(data)
        writer.write(name + b" " + digest.hexdigest().encode() + b"\n")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


def answer(name: bytes, family: int, port: int = DNS) -> None:
    """Answers datagrams of one family from the address that each was sent to."""
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        if family == socket.AF_INET:
            server.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        server.bind(("", port))
        while True:
            question, ancillary, _flags, client = server.recvmsg(65535, ANCILLARY)
            level, kind, data = ancillary[0]
            if family == socket.AF_INET:  # struct in_pktinfo: where it was sent to comes last
                data = struct.pack("=I4s4x", 0, data[8:12])
            else:  # struct in6_pktinfo: the answer leaves where the route leads
                data = data[:16] + bytes(4)
            with contextlib.suppress(OSError):  # the address may be gone meanwhile
                server.sendmsg([name + b" " + question], [(level, kind, data)], 0, client)


async def serve(name: bytes) -> None:
    for port, handler in ((LINES, lines), (UPLOADS, upload)):

        def handle(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: object = handler
        ) -> object:
            return handler(name, reader, writer)

        for any_address in ("0.0.0.0", "::"):
            await asyncio.start_server(handle, any_address, port, backlog=1024)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    own_name = sys.argv[1].encode()
    for each in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=answer, args=(own_name, each), daemon=True).start()
    asyncio.run(serve(own_name))
