# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make molecule`: every scenario on its machines, with times, and what passed where.

    run.py                    all of it
    run.py modules sockmap    these scenarios
    run.py --sample           the part of it that `make test` has time for

What passes goes into docs/support.json and the README's table, but for what the sample proves.
EBPF_FLEET_MACHINES=trixie,newest boots these machines only. The exit status is 1 when anything
failed, when a scenario ran on no machine, and when one lacks a playbook. The machines are gone
afterwards, whatever happened.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import results
import scenarios
import support
from results import Action, Verdict
from scenarios import Matrix, Scenario

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv" / "bin"
COLLECTIONS = ROOT / ".cache" / "collections"
TAIL_LINES = 120  # of molecule's output, when a scenario fails
ENDING = 15.0  # seconds that molecule gets to end by itself once it is told to


@dataclass(frozen=True)
class Run:
    """What is to run, where, and where its traces go."""

    matrix: Matrix
    scenarios: list[Scenario]
    booted: tuple[str, ...]
    sample: bool
    directory: Path

    @property
    def record(self) -> Path:
        return self.directory / "record.jsonl"

    @property
    def log(self) -> Path:
        return self.directory / "molecule.log"

    @property
    def sequence(self) -> tuple[Action, ...]:
        """The steps of each scenario; the sample leaves out two of them."""
        return results.SAMPLE if self.sample else results.SEQUENCE

    def verdicts(self) -> list[Verdict]:
        """What came of every scenario on every machine that it was to run on."""
        places = {each.name: each.on(self.booted, sample=self.sample) for each in self.scenarios}
        records = results.read(self.record)
        return results.verdicts(self.matrix, self.scenarios, places, records, self.sequence)


def say(text: str) -> None:
    print(text, flush=True)


def chosen(arguments: argparse.Namespace, matrix: Matrix) -> tuple[list[Scenario], tuple[str, ...]]:
    """The scenarios to run and the machines to boot.

    Raises SystemExit for a name that there is not and for a scenario that has no machine to run on.
    """
    wanted = os.environ.get("EBPF_FLEET_MACHINES", "").replace(",", " ").split()
    unknown = sorted(set(wanted) - set(matrix.machines))
    if unknown:
        raise SystemExit(f"molecule/matrix.yml has no machine {', '.join(unknown)}")
    there = tuple(wanted or matrix.machines)
    named = [matrix.scenario(name) for name in arguments.scenarios] or list(matrix.scenarios)
    places = {each.name: each.on(there, sample=arguments.sample) for each in named}
    without = [name for name, machines in places.items() if not machines]
    if without and (arguments.scenarios or len(without) == len(named)):
        raise SystemExit(f"{', '.join(without)}: no hosts among {', '.join(there)}")
    if without and wanted:
        say(f"left out, as their machines are not wanted: {', '.join(without)}")
    needed = {name for machines in places.values() for name in machines}
    scenarios = [each for each in named if places[each.name]]
    return scenarios, tuple(name for name in matrix.machines if name in needed)


def environment(run: Run) -> dict[str, str]:
    """What molecule and the machines are told."""
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(VENV), os.environ.get("PATH", os.defpath)]),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "callback"),
        "ANSIBLE_CALLBACKS_ENABLED": "record",
        "EBPF_FLEET_RECORD": str(run.record),
        "EBPF_FLEET_MACHINES": ",".join(run.booted),
        "EBPF_FLEET_SAMPLE": "1" if run.sample else "",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(run.directory / "state"),
        "MOLECULE_PROJECT_DIRECTORY": str(ROOT),
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def molecule(run: Run, scenarios: list[Scenario]) -> int:
    """`molecule test` of these scenarios; its status. Each step is reported as it ends."""
    configs = ["config.yml", "sample.yml"] if run.sample else ["config.yml"]
    command = [str(VENV / "molecule")]
    command += [word for name in configs for word in ("--base-config", f"molecule/{name}")]
    command.append("test")
    if len(scenarios) == len(run.matrix.scenarios):
        command.append("--all")
    else:
        command += [word for scenario in scenarios for word in ("--scenario-name", scenario.name)]
    # Molecule would skip `create` if it found there that an earlier run got that far.
    shutil.rmtree(run.directory / "state", ignore_errors=True)
    shown = len(results.read(run.record))
    with run.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(run),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                time.sleep(0.5)
                shown = show_new(run, shown)
        finally:
            end(process)
    show_new(run, shown)
    return process.returncode


def end(process: subprocess.Popen[bytes]) -> None:
    """End molecule and its children, which are in a process group of their own."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(timeout=ENDING / 3)
        except subprocess.TimeoutExpired:
            continue


def show_new(run: Run, shown: int) -> int:
    """Say what has ended since so many records had; how many have now."""
    records = results.read(run.record)
    for record in records[shown:]:
        hosts = [name for name in record.hosts if name != "localhost"]
        failed = [name for name, counts in record.hosts.items() if counts["failed"]]
        say(
            f"{record.scenario:<10} {record.playbook + (' --check' if record.check else ''):<17} "
            f"{record.seconds:6.1f} s  {len(hosts)} machines"
            + (f"  FAILED on {', '.join(failed)}" if failed else "")
        )
    return len(records)


def run_all(run: Run) -> None:
    """Every scenario. One that fails takes its machines with it; the rest gets new ones."""
    left = run.scenarios
    while left:
        say(f"molecule test: {', '.join(scenario.name for scenario in left)}")
        say(f"               on {', '.join(run.booted)}")
        status = molecule(run, left)
        begun = {record.scenario for record in results.read(run.record)}
        rest = [scenario for scenario in left if scenario.name not in begun]
        if status:
            say("\n".join(tail(run.log)))
            say(f"molecule ended with status {status}; all of its output is in {run.log}")
        if not status or len(rest) == len(left):
            return
        left = rest


def tail(log: Path) -> list[str]:
    return [f"    {line}" for line in log.read_text(errors="replace").splitlines()[-TAIL_LINES:]]


def end_strays(run: Run) -> None:
    """End what molecule started and left behind: Ansible's workers are in sessions of their own.

    One that went on would boot machines after they were taken down. They are known by the
    environment that they have inherited.
    """
    mark = f"EBPF_FLEET_RECORD={run.record}".encode()
    deadline = time.monotonic() + ENDING
    while True:
        strays = [pid for pid in processes() if mark in environment_of(pid)]
        if not strays or time.monotonic() > deadline:
            return
        for pid in strays:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid: int) -> list[bytes]:
    """NAME=value of a process; nothing when it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def take_down(run: Run) -> None:
    """No process, machine or network of this run stays, however far it came."""
    end_strays(run)
    command = [sys.executable, str(HERE / "machines" / "machines.py"), "down"]
    subprocess.run(command, cwd=ROOT, env=environment(run), check=True)


def report(run: Run, found: list[Verdict], seconds: float) -> None:
    """Times and what passed; and of a sample, what it left out."""
    records = results.read(run.record)
    for name in ("create", "destroy"):
        took = [record.seconds for record in records if record.playbook == name]
        if took:
            say(f"{name}: {' + '.join(f'{each:.0f}' for each in took)} s")
    say("\n" + "\n".join(results.times(records, run.scenarios, run.sequence)))
    say("\n" + "\n".join(results.passes(run.matrix, found)))
    if run.sample:
        say("\nleft to `make molecule`: " + "; ".join(left_out(run)))
    passed = sum(verdict.passed for verdict in found)
    say(f"\n{passed} passed, {len(found) - passed} failed, 0 skipped in {seconds:.0f} s")


def left_out(run: Run) -> list[str]:
    """The steps, scenarios and machines that a sample does without, in words."""
    steps = [action.name for action in results.SEQUENCE if action not in run.sequence]
    words = [f"{' and '.join(steps)} of every scenario"]
    for scenario in run.matrix.scenarios:
        rest = [name for name in scenario.machines if name not in scenario.sample]
        if rest:
            words.append(f"{scenario.name} on {', '.join(rest)}")
    return words


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """One run of a name at a time: its machines have names and ports of their own."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                "another run is under way; wait for it, or give this one a name (EBPF_FLEET_RUN)"
            ) from None
        yield


def ignore_signals() -> None:
    """From here on nothing interrupts this process or those that it starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the scenarios on virtual machines.")
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    parser.add_argument("--sample", action="store_true", help="the part that `make test` runs")
    parser.add_argument("--junit", type=Path, help="write the verdicts to this file, too")
    arguments = parser.parse_args()
    matrix = scenarios.read()
    faults = scenarios.faults(matrix, arguments.scenarios)
    if faults:
        say("\n".join([*faults, f"nothing was booted: {len(faults)} faults in molecule/"]))
        return 1
    wanted, booted = chosen(arguments, matrix)
    directory = ROOT / ".cache" / "molecule" / os.environ.get("EBPF_FLEET_RUN", "molecule")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    with alone(directory):
        run = Run(matrix, wanted, booted, arguments.sample, directory)
        try:
            return carry_out(run, arguments.junit)
        except KeyboardInterrupt:
            say("interrupted; the machines are taken away")
            return 130


def carry_out(run: Run, junit: Path | None) -> int:
    """The run from its first machine to its report; the exit status."""
    began = time.monotonic()
    for file in (run.record, run.log):
        file.unlink(missing_ok=True)
    try:
        take_down(run)
        run_all(run)
    finally:
        ignore_signals()  # machines would stay
        take_down(run)
    found = run.verdicts()
    results.write(found, run.directory / "results.json")
    report(run, found, time.monotonic() - began)
    if junit:
        results.junit(found, junit)
    passed = {(each.scenario, each.machine) for each in found if each.passed}
    records = results.read(run.record)
    contradictions = [] if not run.sample else support.contradictions(run.matrix, records, passed)
    if contradictions:
        say("\n".join(contradictions))
    if len(passed) < len(found) or contradictions:
        return 1
    if not run.sample:
        support.update(run.matrix, records, passed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
