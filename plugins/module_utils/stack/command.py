# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The command ebpf-fleet: what an operator, a boot or a guard asks of the engine."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..resource.errors import Failure, from_os_error, require_root
from . import boot, engine_dir, guard, main, store
from . import manifest as manifests

_ABOUT = """\
What this host keeps of its eBPF stacks, and the way back to any stored release. It needs neither
Ansible nor a network. A stack is a named set of programs, maps and attachments; a release is one
version of it, stored below /var/lib/ebpf-fleet."""

_STATUSES = """\
exit status:
  0  done, or there was nothing to do (status: every stack is in sync or removed;
     replay: every stack runs a release, its current one or what it fell back to)
  1  refused or failed; the reason is on standard error, and nothing was changed unless it says so
  2  the command line is wrong
  3  status: a stack is drifted, unfinished, or runs what a boot fell back to

examples:
  ebpf-fleet status                       which release of which stack runs, and whether it is whole
  ebpf-fleet withdraw web 2026-11-21.1    back to what ran before this release, if it runs
  ebpf-fleet activate web 2026-11-20.3    to this stored release, wherever the host is
  ebpf-fleet --check remove web           what taking the stack away would do
  ebpf-fleet replay                       all stacks as they are stored, as a boot does
  ebpf-fleet metrics                      what Prometheus would be told"""

Function = Callable[[argparse.Namespace], int]


def run(arguments: Sequence[str]) -> int:
    """Do what the command line says. Returns the exit status."""
    options = _parser().parse_args(list(arguments))
    function: Function = options.function
    try:
        require_root()
        with engine_dir.in_use() if options.holds_engine else contextlib.nullcontext():
            return function(options)
    except Failure as failure:
        sys.stderr.write(f"ebpf-fleet: {failure}\n")
    except OSError as error:
        sys.stderr.write(f"ebpf-fleet: {from_os_error(error, str(error.filename or 'it'))}\n")
    return 1


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "ebpf-fleet", description=_ABOUT, epilog=_STATUSES, formatter_class=layout
    )
    parser.add_argument("--check", action="store_true", help="only say what would be done")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.set_defaults(holds_engine=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    status = commands.add_parser("status", help="tell what runs, and whether it is whole")
    status.add_argument("stack", nargs="?", help="only this stack")
    status.set_defaults(function=_status)

    for name, text in (
        ("activate", "make a stored release what the host runs"),
        ("withdraw", "go back to what ran before a release, where the release runs"),
        ("confirm", "keep a release that waits to be confirmed"),
        ("forget", "remove a stored release that does not run"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("stack")
        command.add_argument("release")
        command.set_defaults(function=_ask)

    remove = commands.add_parser("remove", help="take a stack away, with all that is stored of it")
    remove.add_argument("stack")
    remove.set_defaults(function=_ask, release=None)

    text = "bring stacks to what is stored, as a boot does"
    replay = commands.add_parser("replay", help=text, description=text)
    replay.add_argument("stack", nargs="*", help="only these stacks, whatever their phase")
    replay.add_argument(
        "--phase", choices=boot.PHASES, help="only stacks of this phase of a boot (default: both)"
    )
    replay.set_defaults(function=_replay)

    text = "tell what there is, and what it does, as metrics for Prometheus"
    metrics = commands.add_parser("metrics", help=text, description=text)
    where = metrics.add_mutually_exclusive_group()
    where.add_argument("--listen", metavar="ADDRESS:PORT", default="", help="serve them by HTTP")
    where.add_argument(
        "--write", metavar="FILE.prom", default="", help="write them into a file for node_exporter"
    )
    metrics.add_argument(
        "--every", metavar="SECONDS", type=float, default=0.0, help="with --write: again and again"
    )
    metrics.add_argument(
        "--foreign", action="store_true", help="list programs of others, too, not only count them"
    )
    metrics.set_defaults(function=_metrics, holds_engine=False)

    text = "answer a request, JSON on standard input, in JSON on standard output"
    request = commands.add_parser(
        "request", help=text, description=f"{text}.\n{main.handle.__doc__}", formatter_class=layout
    )
    request.set_defaults(function=_request)

    text = "wait for the end of a change that has to be confirmed; started by a deployment"
    watch = commands.add_parser("guard", description=text)
    watch.add_argument("stack")
    watch.add_argument("token")
    watch.set_defaults(function=lambda options: guard.run(options.stack, options.token))
    return parser


def _ask(options: argparse.Namespace) -> int:
    request = {"do": options.command, "name": options.stack, "release": options.release}
    answer = main.handle(request, options.check)
    if options.json:
        _print_json(answer)
        return 0
    for warning in answer["warnings"]:
        sys.stderr.write(f"ebpf-fleet: {warning}\n")
    for action in answer["actions"]:
        sys.stdout.write(f"{'would ' if options.check else ''}{action}\n")
    running = answer["release"] or "nothing"
    state = "would run" if options.check and answer["changed"] else "runs"
    sys.stdout.write(f"stack {options.stack} {state} {running}\n")
    return 0


def _replay(options: argparse.Namespace) -> int:
    if options.check:
        raise Failure("replay has no --check; ask for the status, which tells what differs")
    phases = (options.phase,) if options.phase else boot.PHASES
    names = tuple(manifests.check_name(name) for name in options.stack)
    for name in names:
        if name not in store.stacks():
            raise Failure(f"there is no stack {name}; there are: {', '.join(store.stacks())}")
    return boot.replay(phases, names)


def _metrics(options: argparse.Namespace) -> int:
    from ..metrics import command as metrics  # nothing else needs it

    words = ["metrics", "--every", str(options.every)]
    words += ["--listen", options.listen] if options.listen else []
    words += ["--write", options.write] if options.write else []
    words += ["--foreign"] if options.foreign else []
    wanted = metrics.Options(
        options.listen, options.write, options.every, options.foreign, tuple(words)
    )
    return metrics.run(wanted)


def _request(options: argparse.Namespace) -> int:
    """Failures are answers here: {"failed": true, "msg": ...}, with exit status 1."""
    try:
        request = json.loads(sys.stdin.read())
    except ValueError as error:
        raise Failure(f"standard input holds no JSON: {error}") from error
    if not isinstance(request, dict):
        raise Failure("standard input holds no request: a JSON object with the key 'do'")
    try:
        answer = main.handle(request, options.check)
    except Failure as failure:
        _print_json({**failure.details, "failed": True, "msg": str(failure)})
        return 1
    _print_json(answer)
    return 0


def _status(options: argparse.Namespace) -> int:
    found = main.handle({"do": "status", "name": options.stack}, True)["stacks"]
    if options.json:
        _print_json(found)
    else:
        _print_status(found)
    whole = all(each["condition"] in ("in_sync", "removed") for each in found)
    return 0 if whole else 3


def _print_status(found: Sequence[Mapping[str, Any]]) -> None:
    if not found:
        sys.stdout.write("no stack is stored on this host\n")
    for each in found:
        running = each["running"] or "nothing"
        sys.stdout.write(f"{each['name']}: {each['condition']}, runs {running}\n")
        if each["reason"]:
            sys.stdout.write(f"  {each['reason']}\n")
        for action in each["actions"]:
            sys.stdout.write(f"  to do: {action}\n")
        for stored in each["releases"]:
            mark = "*" if stored["active"] else " "
            before = stored["predecessor"] or "nothing"
            sys.stdout.write(
                f"  {mark} {stored['name']}  stored {stored['created']}, before it {before}\n"
            )


def _print_json(document: object) -> None:
    sys.stdout.write(json.dumps(document, indent=1, sort_keys=True) + "\n")
