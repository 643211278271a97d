# SPDX-License-Identifier: GPL-3.0-or-later
"""Loading, attaching and reading the accelerator under test: the only file that knows how.

bpftool loads and reads: a witness that shares nothing with the collection's own engine. It cannot make links, so
three bpf(2) commands are called directly.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import RUN_PREFIX, wait_for

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "roles/sockmap_accelerator/files/sockmap.bpf.o"
OBJECT = Path(os.environ.get("SOCKMAP_OBJECT", BUILT))
PORTS = ((7000, 7999),)
NETWORKS = ("127.0.0.0/8", "10.77.0.0/16", "::1/128", "fd77::/64")

BPF_FS_MAGIC = 0xCAFE4A11  # linux/magic.h
SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
OBJ_GET, LINK_CREATE, LINK_UPDATE, LINK_DETACH = 7, 28, 29, 34  # enum bpf_cmd, linux/bpf.h
CGROUP_SOCK_OPS, SK_MSG_VERDICT = 3, 7  # enum bpf_attach_type


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(attributes, 128)
    result = int(libc.syscall(SYS_BPF, command, buffer, 128))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextmanager
def opened(pin: Path) -> Iterator[int]:
    """A descriptor of a pinned object."""
    name = ctypes.create_string_buffer(str(pin).encode())
    descriptor = bpf(OBJ_GET, struct.pack("Q", ctypes.addressof(name)))
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def bpftool(*arguments: object) -> Any:
    words = [str(argument) for argument in arguments]
    done = subprocess.run(["bpftool", "-j", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"bpftool {' '.join(words)}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout or "null")


@contextmanager
def bpffs() -> Iterator[Path]:
    """A bpffs of our own, in a mount namespace that is private already."""
    with tempfile.TemporaryDirectory(prefix=f"{RUN_PREFIX}{os.getpid()}-") as directory:
        subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
        try:
            seen = subprocess.run(["stat", "-fc", "%t", directory], capture_output=True, check=True)
            assert int(seen.stdout, 16) == BPF_FS_MAGIC
            yield Path(directory)
        finally:
            subprocess.run(["umount", directory], check=True)


def port_prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The (port, prefix length) pairs that together are a range of ports."""
    while first <= last:
        size = first & -first or 1 << 16
        while first + size - 1 > last:
            size //= 2
        yield first, 17 - size.bit_length()
        first += size


def port_key(port: int, length: int) -> bytes:
    return struct.pack("=I", length) + struct.pack("!H", port)


def network_key(network: str) -> bytes:
    parsed = ipaddress.ip_network(network)
    if isinstance(parsed, ipaddress.IPv4Network):
        address, length = (
            bytes(10) + b"\xff\xff" + parsed.network_address.packed,
            96 + parsed.prefixlen,
        )
    else:
        address, length = parsed.network_address.packed, parsed.prefixlen
    return struct.pack("=I", length) + address


def words(data: bytes) -> list[str]:
    return ["hex", *(f"{byte:02x}" for byte in data)]


@dataclass(frozen=True)
class Accelerator:
    """The accelerator, attached to one cgroup. Pins: programs/ maps/ below `pins`."""

    pins: Path
    group: Path
    sockops_link: int
    sk_msg_link: int

    def map(self, name: str) -> Path:
        return self.pins / "maps" / name

    def counters(self) -> dict[str, int]:
        """Every counter, summed over the CPUs."""
        if not self.map("counters").exists():
            return {}
        values = bpftool("map", "dump", "pinned", self.map("counters"))[0]["formatted"]["values"]
        totals: dict[str, int] = {}
        for cpu in values:
            for name, number in cpu["value"].items():
                totals[name] = totals.get(name, 0) + int(number)
        return totals

    def live_sockets(self) -> int:
        return len(bpftool("map", "dump", "pinned", self.map("sockets")))

    def is_empty(self, seconds: float) -> bool:
        """Waits until no socket is in the map any more; returns whether that happened."""
        return wait_for(lambda: self.live_sockets() == 0, seconds)

    def change(self, action: str, name: str, key: bytes, value: bytes = b"") -> None:
        given = ["value", *words(value)] if value else []
        bpftool("map", action, "pinned", self.map(name), "key", *words(key), *given)

    def allow_ports(self, ranges: Iterable[tuple[int, int]]) -> None:
        for first, last in ranges:
            for port, length in port_prefixes(first, last):
                self.change("update", "policy_ports", port_key(port, length), b"\1")

    def deny_ports(self, ranges: Iterable[tuple[int, int]]) -> None:
        for first, last in ranges:
            for port, length in port_prefixes(first, last):
                self.change("delete", "policy_ports", port_key(port, length))

    def allow_networks(self, networks: Iterable[str]) -> None:
        for network in networks:
            self.change("update", "policy_cidrs", network_key(network), b"\1")

    def deny_networks(self, networks: Iterable[str]) -> None:
        for network in networks:
            self.change("delete", "policy_cidrs", network_key(network))

    def set(self, setting: str, value: int) -> None:
        """Changes one member of the settings; the others keep their values."""
        dumped = bpftool("map", "dump", "pinned", self.map("settings"))[0]["formatted"]["value"]
        assert setting in dumped, f"no such setting: {dumped}"
        values = {**dumped, setting: value}
        self.change(
            "update", "settings", bytes(4), bytes(int(number) for number in values.values())
        )

    def stop(self) -> None:
        """No further connection is picked up; those in the map stay accelerated."""
        bpf(LINK_DETACH, struct.pack("I", self.sockops_link))

    def upgrade(self, version: Path) -> None:
        """Another version takes over both links, with the maps kept."""
        fresh = self.pins / "upgrade"
        load(version, fresh, kept_maps(self.pins / "maps"))
        for link, program in (
            (self.sk_msg_link, "sockmap_redirect"),
            (self.sockops_link, "sockmap_establish"),
        ):
            with opened(fresh / "programs" / program) as descriptor:
                bpf(LINK_UPDATE, struct.pack("IIII", link, descriptor, 0, 0))
        remove_pins(self.pins / "programs")
        (fresh / "programs").rename(self.pins / "programs")
        remove_pins(fresh)

    def remove(self) -> None:
        """Detaches both programs and unpins everything, whatever is still in the map."""
        self.stop()
        bpf(LINK_DETACH, struct.pack("I", self.sk_msg_link))
        remove_pins(self.pins)


def kept_maps(directory: Path) -> dict[str, Path]:
    """What an upgrade takes over: all but the constants, which belong to one version."""
    return {pin.name: pin for pin in directory.iterdir() if not pin.name.endswith("rodata")}


def remove_pins(directory: Path) -> None:
    if directory.is_dir():
        for entry in directory.iterdir():
            remove_pins(entry)
        directory.rmdir()
    elif directory.exists():
        directory.unlink()


def load(path: Path, pins: Path, kept: dict[str, Path]) -> None:
    """Loads an object, pins its programs in programs/ and its maps in maps/; takes kept maps as they are."""
    pins.mkdir(exist_ok=True)
    reuse = [word for name, pin in kept.items() for word in ("map", "name", name, "pinned", pin)]
    bpftool("prog", "loadall", path, pins / "programs", *reuse, "pinmaps", pins / "maps")


@contextmanager
def accelerator(
    pins: Path, group: Path, max_sockets: int = 0, path: Path | None = None
) -> Iterator[Accelerator]:
    """The accelerator with an open policy for the addresses and ports that the tests use."""
    kept = {}
    if max_sockets:
        pins.mkdir()
        kept["sockets"] = pins / "sockets"
        shape = ["type", "sockhash", "key", 8, "value", 8, "entries", max_sockets]
        bpftool("map", "create", kept["sockets"], *shape, "name", "sockets")
    with ExitStack() as stack:
        stack.callback(remove_pins, pins)
        load(path or OBJECT, pins, kept)
        programs = pins / "programs"
        descriptors = [
            stack.enter_context(opened(pin))
            for pin in (
                programs / "sockmap_redirect",
                pins / "maps" / "sockets",
                programs / "sockmap_establish",
            )
        ]
        redirect, sockets, establish = descriptors
        cgroup = os.open(group, os.O_RDONLY)
        stack.callback(os.close, cgroup)
        # sk_msg first: a socket that enters the map earlier would never be accelerated
        sk_msg_link = bpf(LINK_CREATE, struct.pack("IIII", redirect, sockets, SK_MSG_VERDICT, 0))
        stack.callback(os.close, sk_msg_link)
        made = Accelerator(pins, group, 0, sk_msg_link)
        if made.map("policy_cidrs").exists():
            made.allow_ports(PORTS)
            made.allow_networks(NETWORKS)
        sockops_link = bpf(LINK_CREATE, struct.pack("IIII", establish, cgroup, CGROUP_SOCK_OPS, 0))
        stack.callback(os.close, sockops_link)
        yield Accelerator(pins, group, sockops_link, sk_msg_link)
