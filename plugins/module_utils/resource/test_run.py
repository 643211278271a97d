# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A program run on packets, and what came of it compared with what was expected."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ..bpf import headroom, pins, test_run
from ..bpf.syscall import Fd
from . import pcap, pinned, verdicts
from .errors import Failure, from_os_error
from .hexdiff import hexdiff
from .paths import pin_path

_ENOTSUPP = 524  # include/linux/errno.h: the kernel's own, which errno does not know
_MAX_REPEAT = 1_000_000
_SHOWN = 5  # failed packets whose differences an error message shows


@dataclass(frozen=True)
class Packet:
    """One packet, and what is expected: None, or an empty verdict, for what is not.

    ``data`` and what is expected of it begin with the Ethernet header.
    """

    name: str
    data: bytes
    verdict: str = ""
    expected: bytes | None = None
    unchanged: bool | None = None


@dataclass(frozen=True)
class Request:
    """What to run: the pin of a program, and each packet ``repeat`` times for the duration."""

    pin: str
    packets: tuple[Packet, ...]
    repeat: int


@dataclass(frozen=True)
class Outcome:
    """What became of a packet. ``duration`` is the mean of all runs, in ns."""

    packet: Packet
    verdict: int
    word: str
    data: bytes
    changed: bool
    duration: int
    problems: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """For the module's result."""
        return {
            "name": self.packet.name,
            "verdict": self.word,
            "number": self.verdict,
            "data": self.data.hex(),
            "changed": self.changed,
            "ns": self.duration,
            "met": not self.problems,
        }


@dataclass(frozen=True)
class Result:
    """All packets. ``prog_id`` is 0 when nothing is pinned yet; ``poisoned``: the headroom was."""

    prog_id: int
    poisoned: bool
    outcomes: tuple[Outcome, ...]

    def problems(self) -> str:
        """Every expectation that was not met, for people; empty when all were."""
        failed = [outcome for outcome in self.outcomes if outcome.problems]
        shown = [problem for outcome in failed[:_SHOWN] for problem in outcome.problems]
        if failed[_SHOWN:]:
            shown.append(f"and {len(failed) - _SHOWN} more of {len(self.outcomes)} packets")
        return "\n".join(shown)


def request(params: Mapping[str, Any]) -> Request:
    """Take the module's options. Raises Failure that names the one that is wrong."""
    if not 1 <= params["repeat"] <= _MAX_REPEAT:
        raise Failure(f"repeat: {params['repeat']} is not from 1 to {_MAX_REPEAT}")
    packets = tuple(
        packet for number, item in enumerate(params["packets"]) for packet in _packets(item, number)
    )
    if not packets:
        raise Failure("packets: there is none to run; name at least one")
    return Request(pin_path(params["prog"]), packets, params["repeat"])


def _packets(item: Mapping[str, Any], number: int) -> Iterator[Packet]:
    expect = item.get("expect") or {}
    name = item.get("name") or item.get("pcap") or f"packet {number + 1}"
    wanted = expect.get("data")
    if wanted is not None and expect.get("unchanged") is not None:
        raise Failure(f"packets: {name}: expect either data or unchanged, not both")
    if wanted is not None and item.get("pcap"):
        raise Failure(f"packets: {name}: expected data is of one packet; give that one as data")
    verdict = str(expect["verdict"]) if expect.get("verdict") is not None else ""
    expected = _hex(wanted, f"{name}: expect: data") if wanted is not None else None
    if not item.get("pcap"):
        data = _hex(item["data"], f"{name}: data")
        yield _sized(Packet(name, data, verdict, expected, expect.get("unchanged")))
        return
    for at, data in enumerate(pcap.read(item["pcap"])):
        yield _sized(Packet(f"{name} #{at + 1}", data, verdict, unchanged=expect.get("unchanged")))


def _sized(packet: Packet) -> Packet:
    if not test_run.MIN_PACKET <= len(packet.data) < test_run.MAX_PACKET:
        raise Failure(
            f"packets: {packet.name}: {len(packet.data)} bytes are no packet; it begins with an "
            f"Ethernet header of {test_run.MIN_PACKET}, and is shorter than {test_run.MAX_PACKET}"
        )
    return packet


def _hex(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", " "))
    except ValueError as error:
        raise Failure(f"packets: {option}: {text[:40]!r} is not hexadecimal ({error})") from error


def run(request: Request, check: bool = False) -> Result:
    """Run the program on each packet. Raises Failure when it cannot be run at all.

    In check mode a program that is not pinned yet is no error.
    """
    there = pinned.look(request.pin)
    if there.kind and there.program is None:
        raise Failure(f"{request.pin} is a pinned {there.kind}, not a program; correct prog")
    if there.program is None:
        if check:
            return Result(0, False, ())
        raise Failure(f"no program is pinned at {request.pin}; load it first (ebpf.fleet.bpf_prog)")
    for packet in request.packets:
        if packet.verdict:
            verdicts.require_known(packet.verdict, there.program.type)
    verdicts.of_type(there.program.type)
    with ExitStack() as stack:
        program = stack.enter_context(pins.get(request.pin))
        tested: Fd | None = None
        if there.program.type == "xdp":
            tested = stack.enter_context(headroom.soiled(program))
        outcomes = tuple(
            _try(tested or program, packet, there.program.type, request.repeat)
            for packet in request.packets
        )
    return Result(there.program.id, tested is not None, outcomes)


def _try(program: Fd, packet: Packet, prog_type: str, repeat: int) -> Outcome:
    """The first run alone gives verdict and data: a further one begins with what it left."""
    try:
        first = test_run.run(program, packet.data)
        timed = test_run.run(program, packet.data, repeat) if repeat > 1 else first
    except OSError as error:
        raise from_os_error(error, f"run on {packet.name}", _advice(error, prog_type)) from error
    start = 0 if verdicts.of_type(prog_type).link_layer else test_run.MIN_PACKET
    number = first.verdict - (1 << 32) if first.verdict >> 31 else first.verdict
    return Outcome(
        packet=packet,
        verdict=number,
        word=verdicts.of_type(prog_type).word(number),
        data=first.data,
        changed=first.data[start:] != packet.data[start:],
        duration=timed.duration,
        problems=tuple(_problems(packet, number, first.data, start, prog_type)),
    )


def _advice(error: OSError, prog_type: str) -> str:
    if error.errno == _ENOTSUPP:
        return f"this kernel cannot run {prog_type} programs on packets"
    if error.errno == errno.EINVAL:
        return "the packet is too long for this kernel (about 3500 bytes), or it has no IP header"
    return ""


def _problems(
    packet: Packet, verdict: int, data: bytes, start: int, prog_type: str
) -> Iterator[str]:
    if packet.verdict and not verdicts.meets(verdict, packet.verdict, prog_type):
        got = verdicts.of_type(prog_type).word(verdict)
        yield f"{packet.name}: expected verdict {packet.verdict}, got {got} ({verdict})"
    expected = packet.data if packet.unchanged else packet.expected
    if expected is not None and data[start:] != expected[start:]:
        what = "to stay as it was" if packet.unchanged else f"{len(expected)} bytes"
        difference = "\n".join(hexdiff(expected, data, start))
        yield f"{packet.name}: expected {what}, got {len(data)} bytes:\n{difference}"
    if packet.unchanged is False and data[start:] == packet.data[start:]:
        yield f"{packet.name}: expected to be changed, and is as it was"


def report(result: Result) -> Mapping[str, Sequence[Any] | Any]:
    """What the module returns."""
    return {
        "prog_id": result.prog_id,
        "poisoned": result.poisoned,
        "packets": [outcome.report() for outcome in result.outcomes],
    }
