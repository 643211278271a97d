# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""One check of one backend: does it take a connection, does it answer as it should?"""

from __future__ import annotations

import asyncio
import os
import ssl

from .health_config import Check

_LINE_BYTES = 4096  # more than any status line has


def context_of(check: Check) -> ssl.SSLContext | None:
    """What TLS checks are made with; None for others. Made once, as it reads certificates.

    Without ``verify`` any certificate will do: a backend is checked by address. Raises OSError for
    a ``ca_file`` that cannot be read, or holds no certificate.
    """
    if check.type != "https":
        return None
    if check.verify:
        return ssl.create_default_context(cafile=check.ca_file or None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def probe(check: Check, context: ssl.SSLContext | None, address: str, port: int) -> str:
    """Why the backend is not healthy, in words; "" when it is. Takes at most the check's timeout.

    ``address`` is the backend's own, also where the service's address is on it (dsr, ipip): what is
    asked is whether the server is alive. ``context`` is what ``context_of`` makes of the check.
    """
    try:
        return await asyncio.wait_for(_attempt(check, context, address, port), check.timeout)
    except asyncio.TimeoutError:
        return f"no answer within {check.timeout:g} s"
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not trusted: {error.verify_message}"
    except ssl.SSLError as error:
        return f"TLS failed: {error.reason or error}"
    except OSError as error:
        # asyncio puts words of its own in strerror.
        return (os.strerror(error.errno) if error.errno else str(error)).lower()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return "it closed the connection without a status line"


async def _attempt(check: Check, context: ssl.SSLContext | None, address: str, port: int) -> str:
    reader, writer = await asyncio.open_connection(
        address,
        port,
        limit=_LINE_BYTES,
        ssl=context,
        server_hostname=(check.host or address) if context else None,
    )
    try:
        if check.type == "tcp":
            return ""
        writer.write(_request(check, address))
        return _judge(check, await reader.readuntil(b"\n"))
    finally:
        # Not close(): that would wait for the other side's end of the TLS session.
        if context:
            writer.transport.abort()
        else:
            writer.close()


def _request(check: Check, address: str) -> bytes:
    host = check.host or (f"[{address}]" if ":" in address else address)
    lines = (
        f"GET {check.path} HTTP/1.1",
        f"Host: {host}",
        "User-Agent: ebpf-fleet-health",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


def _judge(check: Check, line: bytes) -> str:
    """RFC 9112, section 4: HTTP-version SP status-code SP reason."""
    words = line.decode("latin-1").split()
    if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdigit():
        return "what it answers is no HTTP"
    status = int(words[1])
    if any(first <= status <= last for first, last in check.status):
        return ""
    return f"it answers with status {status}"
