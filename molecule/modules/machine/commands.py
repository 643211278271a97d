# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be asked of a machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import attach_cases
import declared
import kernel_cases
import lb_cases
import net_cases
import witness
from quartet import Report

Case = Callable[[Report], None]


def main(home: str, words: Sequence[str]) -> None:
    """Do what the command line says; JSON on standard output."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "command", choices=["prepare", "note", "same", "verify", "try", "harm", "leave"]
    )
    parser.add_argument("--card", default="eth1", help="the interface for data")
    parser.add_argument("--address", default="10.77.0.1", help="its IPv4 address")
    parser.add_argument("--hierarchy", default="unified", help="how cgroups are mounted")
    parser.add_argument("--only", default="", help="the cases with this in their names")
    options = parser.parse_args(words)
    report = Report()
    if options.command == "try":
        _try(report, home, options)
    else:
        _run(report, options.command, lambda report: _declared(report, options))
    json.dump(report.answer(), sys.stdout)
    sys.exit(1 if report.problems and options.command not in ("verify", "try") else 0)


def _declared(report: Report, options: argparse.Namespace) -> None:
    """Commands about what the playbook declares."""
    commands: dict[str, Callable[[], None]] = {
        "prepare": declared.prepare,
        "note": declared.note,
        "same": lambda: declared.same(report),
        "verify": lambda: declared.seen(report, options.card, loads()),
        "harm": lambda: declared.harm(options.card, loads()),
        "leave": lambda: declared.leave(report, options.card, loads()),
    }
    commands[options.command]()


def _try(report: Report, home: str, options: argparse.Namespace) -> None:
    for name, case in cases(os.path.join(home, "objects"), options).items():
        if options.only in name:
            start, known = time.monotonic(), len(report.problems)
            _run(report, name, case)
            took = time.monotonic() - start
            found = "\n".join(report.problems[known:])
            print(f"{name}: {took:.1f} s\n{found}".strip(), file=sys.stderr, flush=True)


def _run(report: Report, name: str, case: Case) -> None:
    try:
        case(report)
    except Exception:  # noqa: BLE001 (the other cases are of interest all the same)
        report.problems.append(f"{name}: {traceback.format_exc()}")
        report.changed_by_hand()


def cases(objects: str, options: argparse.Namespace) -> dict[str, Case]:
    """Everything that is tried here, by name, in order."""
    found: dict[str, Case] = {
        "hierarchy": lambda report: attach_cases.hierarchy(report, options.hierarchy),
        "bpffs": kernel_cases.bpffs,
        "maps": kernel_cases.maps,
    }
    if not loads():
        return {**found, "refusal": lambda report: kernel_cases.refusal(report, objects)}
    return {
        **found,
        "programs": lambda report: kernel_cases.programs(report, objects),
        "packets": lambda report: kernel_cases.packets(report, objects),
        "memlock": lambda report: kernel_cases.memlock(report, objects),
        "cgroups": lambda report: attach_cases.cgroups(report, objects),
        "sockmaps": lambda report: attach_cases.sockmaps(report, objects),
        "interfaces": lambda report: _interfaces(report, objects, options.card),
        "services": lambda report: lb_cases.services(report, objects, options.address),
        "probes": lambda report: lb_cases.probes(report, objects),
    }


def loads() -> bool:
    """Whether there is a libbpf that loads programs: Debian 11 has 0.3."""
    return "libbpf" in witness.say("sh", "-c", "ls /usr/lib/*/libbpf.so.1 2>/dev/null || true")


def _interfaces(report: Report, objects: str, card: str) -> None:
    net_cases.interfaces()
    report.changed_by_hand()
    try:
        net_cases.programs(report, objects)
        net_cases.xdp(report, card)
        net_cases.tc(report)
        net_cases.shared(report)
        net_cases.no_programs(report)
    finally:
        net_cases.no_interfaces()
        report.changed_by_hand()
