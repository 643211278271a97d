# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines of a run: boot them, boot them anew, take them away."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import images
import network
import processes
import qemu
import reach
from declared import Machine
from host import output
from images import Built
from layout import CACHE, PREFIX, Run
from problem import Problem

# Below what the kernel gives to outgoing connections.
PORTS = range(22000, 32000)
POWEROFF_SECONDS = 300
# Said by the machine itself once it is up, for the inventory.
ASK = """uname -r; cat /etc/debian_version; basename "$(readlink -f /usr/bin/python3)"
basename "$(readlink -f /usr/lib/*/libbpf.so.[01])" """


@dataclass(frozen=True)
class State:
    """What is known of a machine that was started; `release` is `uname -r`."""

    port: int
    kernel: str
    image: str
    release: str = ""
    debian: str = ""
    python: str = ""
    libbpf: str = ""


def up(run: Run, machines: list[Machine]) -> None:
    """Boot those of the machines that are not up. Raises Problem when one cannot be reached."""
    with _lock(run):
        _clean_stale(run)
        there = known(run)
        missing = [machine for machine in machines if machine.name not in there]
        built = make_images(missing)
        reach.make_key(run)
        network.make(run)
        for machine in missing:
            _prepare(run, machine, built[machine.image.name])
        _configure_ssh(run)
        _boot_all(run, missing)


def down(run: Run) -> None:
    """Leave nothing of the run on this host, whatever state it is in."""
    if not (run.directory.exists() or network.exists(run) or processes.machines(run)):
        return
    with _lock(run):
        for pid in [*processes.machines(run).values(), *processes.masters(run)]:
            processes.end(pid)
        network.remove(run)
        shutil.rmtree(run.directory)


def restart(run: Run, machine: Machine, kernel: str | None, *, power_cut: bool = False) -> None:
    """Shut a machine down, then boot the same disk, with another of its kernels if one is named."""
    if kernel not in (None, *machine.kernels):
        raise Problem(f"{machine.name} has no kernel {kernel}, but {', '.join(machine.kernels)}")
    with _lock(run):
        pid = processes.machines(run).get(machine.name)
        if pid and not power_cut:
            reach.ssh(run, machine.name, "systemctl --no-block poweroff")
            if not processes.ends_itself(pid, POWEROFF_SECONDS):
                raise Problem(f"{machine.name} is not off after {POWEROFF_SECONDS} seconds")
        elif pid:
            processes.end(pid)
        state = read_state(run, machine.name)
        _write_state(run, machine.name, State(state.port, kernel or machine.kernel, state.image))
    print(_boot(run, machine), flush=True)


def known(run: Run) -> dict[str, State]:
    """The machines of the run, whether they are up or not."""
    names = sorted(path.parent.name for path in run.of("x").parent.glob("*/state.json"))
    return {name: read_state(run, name) for name in names}


def read_state(run: Run, machine: str) -> State:
    try:
        return State(**json.loads(run.state(machine).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise Problem(f"machine {machine} is not up: machines.py up {machine}") from error


def _clean_stale(run: Run) -> None:
    """Forget machines that are gone, or were never reached: whoever booted them was ended."""
    running, states = processes.machines(run), known(run)
    for name in {*running, *states}:
        reached = name in states and states[name].release
        if not (name in running and reached):
            if name in running:
                processes.end(running[name])
            shutil.rmtree(run.of(name), ignore_errors=True)


def _boot_all(run: Run, machines: list[Machine]) -> None:
    """Boot machines, not all at once: they would only slow each other down."""
    problems = []
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for boot in as_completed([pool.submit(_boot, run, machine) for machine in machines]):
            try:
                print(boot.result(), flush=True)
            except Problem as problem:
                problems.append(str(problem))
    if problems:
        raise Problem("\n".join(problems))


def make_images(machines: list[Machine]) -> dict[str, Built]:
    """The images of these machines by name; what is missing is made, two at once."""
    wanted = {machine.image.name: machine.image for machine in machines}
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(wanted, pool.map(images.ensure, wanted.values())))


def _prepare(run: Run, machine: Machine, built: Built) -> None:
    """Everything that a machine needs before it can be started."""
    shutil.rmtree(run.of(machine.name), ignore_errors=True)
    run.of(machine.name).mkdir(parents=True)
    output(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(built.disk)),
        str(run.disk(machine.name)),
    )
    with _global_lock():
        _write_state(run, machine.name, State(_free_port(), machine.kernel, str(built.directory)))


def _configure_ssh(run: Run) -> None:
    states = known(run)
    reach.configure(
        run,
        {name: (state.port, Built(Path(state.image)).host_key) for name, state in states.items()},
    )


def _boot(run: Run, machine: Machine) -> str:
    """Start a machine that is prepared and wait for it; a line that says how long that took.

    Once more when its kernel panics: emulated, and on a busy host, it may, and nothing has been
    asked of it yet.
    """
    begin = time.monotonic()
    state = read_state(run, machine.name)
    try:
        _start(run, machine, state)
    except reach.Panic as panic:
        print(f"{panic}\nmachine {machine.name} is booted once more", flush=True)
        processes.end(processes.machines(run)[machine.name])
        _start(run, machine, state)
    release, debian, python, libbpf = reach.ssh(run, machine.name, ASK).split()
    expected = Built(Path(state.image)).release(state.kernel)
    if release != expected:
        raise Problem(f"{machine.name} runs {release}, not {expected}")
    facts = State(
        *(state.port, state.kernel, state.image, release, debian),
        *(python.removeprefix("python"), libbpf.removeprefix("libbpf.so.")),
    )
    _write_state(run, machine.name, facts)
    return f"{machine.name:14} {release:28} up in {time.monotonic() - begin:.0f} s"


def _start(run: Run, machine: Machine, state: State) -> None:
    """Start QEMU and wait for the machine's ssh server. Raises Problem and its kind Panic."""
    built = Built(Path(state.image))
    console = run.console(machine.name)
    said_before = console.stat().st_size if console.exists() else 0
    with network.tap(run, machine.address, qemu.queues(machine)) as taps:
        command = qemu.command(run, machine, built, state.kernel, state.port, taps)
        done = subprocess.run(command, pass_fds=taps, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(f"{machine.name}: QEMU does not start: {done.stderr.strip()}")
    pid = processes.machines(run).get(machine.name, 0)
    reach.wait(run, machine, state.port, Path("/proc") / str(pid), said_before)


def _write_state(run: Run, machine: str, state: State) -> None:
    path = run.state(machine)
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps(asdict(state)), encoding="utf-8")
    partial.rename(path)


def _free_port() -> int:
    """A port of the host that no machine of any run has, and nothing listens on."""
    taken = set()
    for path in Path("/var/tmp").glob(f"{PREFIX}*/machines/*/state.json"):
        with suppress(FileNotFoundError):  # of a run that is just taken down
            taken.add(json.loads(path.read_text(encoding="utf-8"))["port"])
    for port in PORTS:
        with socket.socket() as probe:
            if port not in taken and probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise Problem(f"no port is free between {PORTS[0]} and {PORTS[-1]}")


@contextmanager
def _lock(run: Run) -> Iterator[None]:
    """The run's directory, and nobody else at work on it; it may be gone at the end."""
    while True:
        run.directory.mkdir(mode=0o700, exist_ok=True)
        if run.directory.is_symlink() or run.directory.stat().st_uid != os.getuid():
            raise Problem(f"{run.directory} is somebody else's: remove it or set EBPF_FLEET_RUN")
        descriptor = os.open(run.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever had the lock may have removed the directory.
            if os.fstat(descriptor).st_nlink:
                yield
                return
        finally:
            os.close(descriptor)


@contextmanager
def _global_lock() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "ports.lock").open("w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
