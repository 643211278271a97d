# SPDX-License-Identifier: GPL-3.0-or-later
"""The load balancer under test: loaded, configured through its maps, run packet by packet."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tables
from network import Host

from ansible_collections.ebpf.fleet.plugins.module_utils.bpf import info, libbpf, maps
from ansible_collections.ebpf.fleet.plugins.module_utils.bpf.syscall import Cmd, Fd, call

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = ROOT / "roles/xdp_lb/files/xdp_lb.bpf.o"
OBJECT = Path(os.environ.get("XDP_LB_OBJECT", BUILT))

ABORTED, DROP, PASS, TX, REDIRECT = range(5)  # enum xdp_action
VERDICTS = ("ABORTED", "DROP", "PASS", "TX", "REDIRECT")
ROOM = 4096

_ATTR = struct.Struct("=IIIIQQIIIIQQIII4x")  # union bpf_attr, test
_XDP_MD = struct.Struct("=6I")
_TABLES = (
    "services4",
    "services6",
    "flows_opening",
    "flows",
    "flows_leaving",
    "nat_opening",
    "nat_flows",
    "nat_replies_opening",
    "nat_replies",
)


@dataclass(frozen=True)
class Result:
    """What became of a packet."""

    verdict: int
    data: bytes

    @property
    def word(self) -> str:
        return VERDICTS[self.verdict] if self.verdict < 5 else str(self.verdict)


class Runner:
    """BPF_PROG_TEST_RUN with memory that is made once: some microseconds a packet."""

    def __init__(self, program: Fd) -> None:
        self._program = program
        self._given = ctypes.create_string_buffer(ROOM)
        self._taken = ctypes.create_string_buffer(ROOM)
        self._context = ctypes.create_string_buffer(_XDP_MD.size)
        self._addresses = [
            ctypes.addressof(memory) for memory in (self._given, self._taken, self._context)
        ]

    def run(self, packet: bytes, ifindex: int, metadata: int = 0) -> Result:
        """Run it on a packet that came in on the interface.

        `metadata`: bytes of headroom that are taken already.
        """
        frame = bytes(metadata) + packet
        given, taken, context = self._addresses
        ctypes.memmove(given, frame, len(frame))
        ctypes.memmove(context, _XDP_MD.pack(metadata, len(frame), 0, ifindex, 0, 0), _XDP_MD.size)
        run = (self._program.number, 0, len(frame), ROOM, given, taken, 1, 0)
        attr = bytearray(_ATTR.pack(*run, _XDP_MD.size, 0, context, 0, 0, 0, 0))
        call(Cmd.PROG_TEST_RUN, attr, f"run on {packet.hex()}")
        answer = _ATTR.unpack(attr)
        return Result(answer[1], ctypes.string_at(taken, answer[3])[metadata:])


@dataclass(frozen=True)
class Backend:
    """A backend in the tables."""

    id: int
    host: Host
    address: str
    port: int


class Balancer:
    """The loaded object, with nothing declared yet.

    `tested` runs behind `poison`, which fills the headroom with 0xFF before every packet.
    """

    def __init__(self, program: Fd, poisoned: Fd, tables_: dict[str, Fd], ifindex: int) -> None:
        self.program = program
        self._bare, self._poisoned = Runner(program), Runner(poisoned)
        self.maps = tables_
        self.infos = {name: info.map_(fd) for name, fd in tables_.items()}
        self.ifindex = ifindex
        self.settings = tables.Settings()
        self._backends: list[int] = []
        self._services: set[int] = set()
        self._rings: dict[int, Fd] = {}
        self._filter = bytearray(self.infos["service_filter"].value_size)

    def close(self) -> None:
        """Let go of the rings; the rest belongs to whoever loaded it."""
        for inner in self._rings.values():
            inner.close()

    # packets

    def run(self, packet: bytes) -> Result:
        return self._poisoned.run(packet, self.ifindex)

    def run_bare(self, packet: bytes, metadata: int = 0, ifindex: int = 0) -> Result:
        """Without poison: with less headroom, or from another interface."""
        return self._bare.run(packet, ifindex or self.ifindex, metadata)

    # what user space declares

    def configure(self, **changes: Any) -> None:
        """Write the settings; what is not named stays."""
        self.settings = replace(self.settings, **changes)
        self.put("settings", bytes(4), self.settings.packed())

    def vip(self, address: str) -> None:
        """The bare address is ours: echo, ICMP errors."""
        protocol = tables.ICMP if tables.is_ipv4(address) else tables.ICMPV6
        self.declare(address, 0, protocol, tables.service(0, 0))

    def service(
        self, number: int, vip: str, port: int, protocol: int, forwarding: int, flags: int = 0
    ) -> None:
        self.vip(vip)
        self.declare(vip, port, protocol, tables.service(number, forwarding, flags))
        self._services.add(number)

    def declare(self, vip: str, port: int, protocol: int, value: bytes) -> None:
        """An entry of the services, and the filter's bit before it."""
        key = tables.service_key(vip, port, protocol)
        bit = tables.filter_bit(key)
        if not self._filter[bit // 8] >> bit % 8 & 1:
            self._filter[bit // 8] |= 1 << bit % 8
            self.put("service_filter", bytes(4), bytes(self._filter))
        self.put("services4" if tables.is_ipv4(vip) else "services6", key, value)

    def fill_filter(self, byte: int) -> None:
        """All bits of the filter at once."""
        self._filter = bytearray([byte]) * len(self._filter)
        self.put("service_filter", bytes(4), bytes(self._filter))

    def backend(
        self, number: int, service: int, host: Host, family: int, port: int = 0, **state: int
    ) -> Backend:
        address = host.address(family)
        self.put("backends", u32(number), tables.backend(address, service, port, **state))
        self._backends.append(number)
        return Backend(number, host, address, port)

    def ring(self, service: int, slots: bytes, moved: int = 0, replace_map: bool = False) -> None:
        """The service's ring: one slot for all, or all of them. `moved`: when, as `seconds()` tells.

        A map of its own is written anew unless told to replace it, which makes the kernel wait.
        """
        content = slots * (tables.RING_SLOTS if len(slots) == 4 else 1) + u32(moved)
        assert len(content) == 4 * tables.RING_SLOTS + 4
        known = self._rings.get(service)
        if known and not replace_map:
            maps.update(known, bytes(4), content)
            return
        inner = maps.create("array", 4, len(content), 1, name="ring")
        maps.update(inner, bytes(4), content)
        self.put("rings", u32(service), u32(inner.number))
        self._rings[service] = inner
        if known:
            known.close()

    def put(self, name: str, key: bytes, value: bytes) -> None:
        shape = self.infos[name]
        assert (len(key), len(value)) == (shape.key_size, shape.value_size), f"layout of {name}"
        maps.update(self.maps[name], key, value)

    def drop(self, name: str, key: bytes) -> None:
        """Remove an entry, as eviction does."""
        maps.delete(self.maps[name], key)

    # what the data plane writes

    def get(self, name: str, key: bytes) -> bytes | None:
        assert len(key) == self.infos[name].key_size, f"layout of {name}"
        return maps.lookup(self.maps[name], key, maps.value_bytes(self.infos[name]))

    def size(self, name: str) -> int:
        """How many entries a table has."""
        return sum(1 for dummy in maps.keys(self.maps[name], self.infos[name].key_size))

    def entries(self, name: str) -> dict[bytes, bytes]:
        found = {key: self.get(name, key) for key in self.keys(name)}
        return {key: value for key, value in found.items() if value is not None}

    def keys(self, name: str) -> list[bytes]:
        return list(maps.keys(self.maps[name], self.infos[name].key_size))

    def _summed(self, name: str, number: int) -> tuple[int, ...]:
        raw = self.get(name, u32(number)) or b""
        words = self.infos[name].value_size // 8
        figures = struct.unpack(f"={len(raw) // 8}Q", raw)
        return tuple(sum(figures[index::words]) for index in range(words))

    def reasons(self) -> dict[str, int]:
        """Those that were counted."""
        counted = {name: self._summed("reasons", at)[0] for at, name in enumerate(tables.REASONS)}
        return {name: count for name, count in counted.items() if count}

    def backend_counters(self, number: int) -> tuple[int, ...]:
        """Packets, bytes, connections."""
        return self._summed("backend_counters", number)

    def service_counters(self, number: int) -> tuple[int, ...]:
        """Dropped, hits and misses in moved slots."""
        return self._summed("service_counters", number)

    def forget_counters(self) -> None:
        for name in ("reasons", "backend_counters", "service_counters"):
            self._zero(name, range(len(tables.REASONS)) if name == "reasons" else self._used())

    def _used(self) -> set[int]:
        return {0, *self._backends, *self._services}

    def _zero(self, name: str, numbers: Iterable[int]) -> None:
        empty = bytes(maps.value_bytes(self.infos[name]))
        for number in numbers:
            maps.update(self.maps[name], u32(number), empty)

    def reset(self) -> None:
        """Forget everything, as if it had just been loaded."""
        for name in _TABLES:
            for key in self.keys(name):
                maps.delete(self.maps[name], key)
        self.forget_counters()
        self._zero("next_hops", self._used())
        for number in self._backends:
            self.put("backends", u32(number), bytes(self.infos["backends"].value_size))
        for number in self._rings:
            self.ring(number, tables.slot(0))
        self.fill_filter(0)
        self._backends.clear()
        self._services.clear()
        self.settings = tables.Settings()
        self.put("settings", bytes(4), bytes(self.infos["settings"].value_size))


def u32(number: int) -> bytes:
    return struct.pack("=I", number)


def seconds() -> int:
    """The data plane's clock: CLOCK_MONOTONIC in units of 2^30 ns."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> 30


def compile_poison(directory: Path) -> Path:
    """poison.bpf.c, compiled."""
    made = directory / "poison.bpf.o"
    flags = ["-g", "-O2", "-target", "bpf", "-Wall", "-Werror"]
    headers = ["-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    source = str(HERE / "poison.bpf.c")
    subprocess.run(["clang", *flags, *headers, "-c", source, "-o", str(made)], check=True)
    return made


@contextmanager
def load(
    path: Path, poison: Path, ifindex: int, sizes: Mapping[str, int] | None = None
) -> Iterator[Balancer]:
    """Load the object and the poison before it; nothing is pinned or attached.

    `sizes`: other numbers of entries than the object asks for.
    """
    with ExitStack() as stack:
        tested = stack.enter_context(libbpf.open_object(str(path)))
        for name, entries in (sizes or {}).items():
            tested.set_max_entries(name, entries)
        tested.load()
        tables_ = {
            made.name: stack.enter_context(tested.map_fd(made.name))
            for made in tested.maps()
            if not made.internal
        }
        program = stack.enter_context(tested.program_fd("xdp_lb"))
        before = stack.enter_context(libbpf.open_object(str(poison)))
        before.load()
        with before.map_fd("tested") as chain:
            maps.update(chain, bytes(4), u32(program.number))
        poisoned = stack.enter_context(before.program_fd("poison"))
        made = Balancer(program, poisoned, tables_, ifindex)
        stack.callback(made.close)
        yield made
