# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the checks of parts.py and total what they counted.

    run.py            every part
    run.py lint unit  only these parts; `lint` is all the static ones

A part that fails does not stop the others. The last line is `N passed, N failed, N skipped`; the
exit status is 1 when anything failed, and a part that ran no test has failed.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import counting
import failures
import leftovers
from counting import Count
from parts import CACHE, PARTS, ROOT, Part, environment

TAIL_LINES = 150  # of a failed static part's output; all of it is in the log


@dataclass(frozen=True)
class Outcome:
    """What came of one part; the duration is in seconds."""

    part: Part
    count: Count
    seconds: float

    @property
    def line(self) -> str:
        word = "FAILED" if self.count.failed else "ok"
        return f"{word:<6}  {self.part.name:<14} {self.seconds:6.1f} s   {self.count}"


def say(text: str) -> None:
    print(text, flush=True)


def log_path(part: Part) -> Path:
    return CACHE / f"{part.name}.log"


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and its process group: politely first, so that tests clean up."""
    running = process.poll() is None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL) if running else (signal.SIGTERM,):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
        return


def execute(part: Part, *, echo: bool) -> bool:
    """Run the part's commands in order until one fails; True when none did.

    Output goes to a file, not to a pipe, which a server that a test left behind would keep open.
    """
    deadline = time.monotonic() + part.timeout
    with log_path(part).open("wb") as log, log_path(part).open("rb") as reader:
        for command in part.commands:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(part),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.2)
                    if echo:
                        show_new(reader)
                if process.poll() is None:
                    log.write(f"\n{part.name}: stopped after {part.timeout} s\n".encode())
                    log.flush()
            finally:
                stop(process)
            if echo:
                show_new(reader)
            if process.returncode != 0:
                return False
    return True


def show_new(reader: BinaryIO) -> None:
    """Pass on what a command has written since the last call."""
    text = reader.read().decode(errors="replace")
    sys.stdout.write(text)
    sys.stdout.flush()


def run_part(part: Part) -> Outcome:
    """Run one part and count it. A static part is quiet unless it fails, as two run at once."""
    if part.alone:
        say(f"\n== {part.name}: {part.what}")
    start = time.monotonic()
    part.forget_results()
    succeeded = execute(part, echo=part.alone)
    count = part.count(part, log_path(part).read_text(errors="replace"), succeeded)
    outcome = Outcome(part, count, time.monotonic() - start)
    report = outcome.line
    if count.failed and not part.alone:
        lines = log_path(part).read_text(errors="replace").splitlines()[-TAIL_LINES:]
        report += "\n" + "\n".join(f"    {line}" for line in lines)
    say(report)
    return outcome


def choose(names: list[str]) -> list[Part]:
    """The parts of these names, in the order of the table; raises SystemExit for any other name."""
    known = {part.name for part in PARTS} | {"lint"}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(
            f"no such part: {', '.join(unknown)}. There are: {', '.join(sorted(known))}"
        )
    wanted = set(names) or {part.name for part in PARTS}
    return [
        part
        for part in PARTS
        if part.always or part.name in wanted or ("lint" in wanted and not part.alone)
    ]


def run_all(parts: list[Part]) -> list[Outcome]:
    """First what the rest needs, then the static parts two at a time, then the others alone."""
    outcomes = [run_part(part) for part in parts if part.always]
    static = [part for part in parts if not part.alone and not part.always]
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes += pool.map(run_part, static)
    outcomes += [run_part(part) for part in parts if part.alone and not part.always]
    return outcomes


def check_leftovers(before: set[str]) -> Outcome:
    """One more test: whatever the parts made is gone."""
    part = Part("leftovers", "the machine is as it was before", ())
    start = time.monotonic()
    left = leftovers.left_since(before)
    outcome = Outcome(part, counting.one(not left), time.monotonic() - start)
    say("\n".join([outcome.line, *(f"    still there: {item}" for item in left)]))
    return outcome


def say_failures(outcomes: list[Outcome]) -> None:
    """What failed, by name; all of a part's output is in its log."""
    for part in (outcome.part for outcome in outcomes if outcome.count.failed):
        if log_path(part).exists():
            output = log_path(part).read_text(errors="replace")
            say(f"\n== failed in {part.name}")
            say("\n".join(failures.of(sorted(part.results.glob("*.xml")), output)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the checks; without names, all of them.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help="; ".join(f"{p.name}: {p.what}" for p in PARTS)
    )
    parts = choose(parser.parse_args().parts)
    CACHE.mkdir(parents=True, exist_ok=True)
    with alone():
        return run_and_report(parts)


@contextmanager
def alone() -> Iterator[None]:
    """One run at a time: the parts share .cache/ and the names of what they make on the machine."""
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is under way in this directory; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_and_report(parts: list[Part]) -> int:
    """All the parts and what they left behind; the exit status."""
    start = time.monotonic()
    before = leftovers.snapshot()
    outcomes = run_all(parts)
    if any(part.alone for part in parts):
        outcomes.append(check_leftovers(before))
    say("\n== summary")
    for outcome in outcomes:
        say(outcome.line)
    say_failures(outcomes)
    say(f"{time.monotonic() - start:.0f} s in all; static parts run two at a time")
    total = sum((outcome.count for outcome in outcomes), Count())
    say(f"{total}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
