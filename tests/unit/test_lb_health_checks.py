# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks of the health service against real servers, and the service itself without a balancer."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import Failure
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import health_checks, health_watch
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb.health_config import Check, Config

ROOT = Path(__file__).parents[2]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


# --- checks


def probe(check: Check, answer: Answer | None, tls: ssl.SSLContext | None = None) -> str:
    """The check's word on a server that answers so; None: nobody listens."""

    async def run() -> str:
        context = health_checks.context_of(check)
        if answer is None:
            with closing(socket.socket()) as unused:
                unused.bind(("127.0.0.1", 0))
                return await health_checks.probe(
                    check, context, "127.0.0.1", unused.getsockname()[1]
                )
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls)
        try:
            port = server.sockets[0].getsockname()[1]
            return await health_checks.probe(check, context, "127.0.0.1", port)
        finally:
            server.close()

    return asyncio.run(run())


def says(line: bytes, heard: list[bytes] | None = None) -> Answer:
    """A server that answers a request with these bytes and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if heard is not None:
                heard.append(request)
            writer.write(line)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return answer


async def is_silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that takes the connection and says nothing."""
    try:
        await asyncio.sleep(2)
    finally:
        writer.close()


async def greets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server of another protocol, which speaks first."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    writer.close()


HTTP = Check(type="http", path="/healthz", timeout=2)


def test_tcp_wants_a_connection() -> None:
    assert probe(Check(timeout=2), is_silent) == ""
    assert probe(Check(timeout=2), None) == "connection refused"


def test_http_wants_a_status() -> None:
    heard: list[bytes] = []
    assert probe(HTTP, says(b"HTTP/1.1 204 No Content\r\n\r\n", heard)) == ""
    assert heard[0].startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
    assert probe(HTTP, says(b"HTTP/1.0 302 Found\r\n\r\n")) == ""
    assert probe(HTTP, says(b"HTTP/1.1 503 Sorry\r\n\r\n")) == "it answers with status 503"
    only = replace(HTTP, status=((500, 503),), host="web.example.com")
    assert probe(only, says(b"HTTP/1.1 503 Sorry\r\n\r\n", heard)) == ""
    assert b"\r\nHost: web.example.com\r\n" in heard[-1]


def test_http_takes_nothing_else_for_an_answer() -> None:
    assert probe(HTTP, says(b"SSH-2.0-OpenSSH\r\n")) == "what it answers is no HTTP"
    closed = "it closed the connection without a status line"
    assert probe(HTTP, says(b"HTTP/1.1 200 OK")) == closed
    assert probe(HTTP, says(b"x" * 10000)) in (closed, "connection reset by peer")
    assert probe(HTTP, is_silent) == "no answer within 2 s"
    assert probe(HTTP, None) == "connection refused"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for web.example.com that nobody but itself vouches for, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=web.example.com", "-days", "2"]
    command += ["-addext", "subjectAltName=DNS:web.example.com"]
    command += ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(Path(f"{path}.crt").read_text() + Path(f"{path}.key").read_text())
    return path


def test_https_checks_the_certificate_only_when_told(certificate: Path) -> None:
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate)
    well = says(b"HTTP/1.1 200 OK\r\n\r\n")
    plain = replace(HTTP, type="https", timeout=5)
    checked = replace(plain, verify=True, host="web.example.com")
    trusting = replace(checked, ca_file=str(certificate))
    assert probe(plain, well, served) == ""
    assert "not trusted" in probe(checked, well, served)
    assert probe(trusting, well, served) == ""
    assert "not trusted" in probe(replace(trusting, host="other.example.com"), well, served)
    assert probe(plain, greets).startswith("TLS failed")


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.pem"
    path.write_text("nothing\n")
    check = Check(type="https", verify=True, host="a", ca_file=str(path))
    with pytest.raises(Failure, match="ca_file"):
        health_watch.contexts_of(Config("/sys/fs/bpf/x", {"web": check}))


# --- the program


@contextmanager
def running(path: Path) -> Iterator[subprocess.Popen[str]]:
    """The packed service on a balancer that does not exist."""
    archive = path.parent / "service.pyz"  # with service.json beside it
    subprocess.run([sys.executable, ROOT / "bpf/pack.py", archive, "xdp_lb.health"], check=True)
    process = subprocess.Popen(
        [sys.executable, archive, path], stdout=subprocess.PIPE, text=True, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_service_waits_for_a_balancer_reloads_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "health.json"
    pins = "/sys/fs/bpf/ebpf_fleet/it_no_such_balancer"
    path.write_text(json.dumps({"pin_dir": pins, "services": {}}))
    with running(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"begins: 0 services of {pins} are checked\n"
        assert process.stdout.readline().startswith(
            f"trouble: no load balancer is pinned in {pins}"
        )
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == f"reloaded: 0 services of {pins} are checked\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "ends: the balancer goes on as it is\n"
        assert process.wait() == 0
        assert time.monotonic() - begun < 10


def test_a_file_that_is_replaced_is_taken_up_and_one_that_is_wrong_is_not(tmp_path: Path) -> None:
    path, staged = tmp_path / "health.json", tmp_path / "health.json.next"
    pins = "/sys/fs/bpf/ebpf_fleet/it_no_such_balancer"

    def put(text: str) -> None:
        staged.write_text(text)
        staged.replace(path)

    put(json.dumps({"pin_dir": pins, "services": {}}))
    with running(path) as process:
        assert process.stdout is not None
        lines = process.stdout
        assert lines.readline() == f"begins: 0 services of {pins} are checked\n"
        assert lines.readline().startswith("trouble: no load balancer is pinned")
        begun = time.monotonic()
        put(json.dumps({"pin_dir": pins, "services": {"web": {}, "shop": {}}}))
        assert lines.readline() == f"reloaded: 2 services of {pins} are checked\n"
        assert time.monotonic() - begun < 10
        put("{")
        assert "is no JSON" in lines.readline()
        path.unlink()
        assert lines.readline() == (
            f"keeps its configuration: cannot read {path}: No such file or directory\n"
        )
        time.sleep(2.5)  # said once, not each second
        put(json.dumps({"pin_dir": pins, "services": {"web": {}}}))
        assert lines.readline() == f"reloaded: 1 services of {pins} are checked\n"
        process.send_signal(signal.SIGTERM)
        assert lines.read() == "ends: the balancer goes on as it is\n"


def test_packing_twice_gives_the_same_bytes_with_nothing_else_in_them(tmp_path: Path) -> None:
    archives = [tmp_path / name for name in ("one.pyz", "two.pyz")]
    for archive in archives:
        subprocess.run([sys.executable, ROOT / "bpf/pack.py", archive, "xdp_lb.health"], check=True)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert b"AnsibleModule" not in archives[0].read_bytes()
