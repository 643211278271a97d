# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The virtual machines that molecule's scenarios run on.

EBPF_FLEET_RUN names the run (default: molecule); several can be up at the same time.
EBPF_FLEET_MACHINES limits which machines are booted where none are named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the table of scenarios is molecule's

import declared
import fleet
import inventory
import processes
import scenarios
from declared import Machine
from layout import Run, this_run, wanted_machines
from problem import Problem


def main() -> int:
    arguments = _arguments()
    run = this_run()
    try:
        return int(arguments.command(run, arguments) or 0)
    except Problem as problem:
        print(f"machines: {problem}", file=sys.stderr)
        return 1


def up(run: Run, arguments: argparse.Namespace) -> None:
    machines = declared.load()
    chosen = _chosen(machines, arguments.machines or wanted_machines())
    if arguments.fresh:
        fleet.down(run)
    fleet.up(run, chosen)
    if arguments.inventory:
        inventory.write(run, machines, scenarios.read(), arguments.inventory)


def down(run: Run, _arguments: argparse.Namespace) -> None:
    fleet.down(run)


def status(run: Run, _arguments: argparse.Namespace) -> int:
    running = processes.machines(run)
    for name, state in fleet.known(run).items():
        what = "gone" if name not in running else "up" if state.release else "boots"
        print(f"{name:14} {state.release:28} {what:5}  ssh -F {run.ssh_config} {name}")
    return 0 if running else 1


def restart(run: Run, arguments: argparse.Namespace) -> None:
    (machine,) = _chosen(declared.load(), [arguments.machine])
    fleet.restart(run, machine, arguments.kernel, power_cut=arguments.power_cut)


def console(run: Run, arguments: argparse.Namespace) -> None:
    path = run.console(arguments.machine)
    if not path.exists():
        raise Problem(f"machine {arguments.machine} is not up")
    sys.stdout.write(path.read_text(encoding="utf-8", errors="replace"))


def build(_run: Run, arguments: argparse.Namespace) -> None:
    chosen = _chosen(declared.load(), arguments.machines or wanted_machines())
    fleet.make_images(chosen)


def _chosen(machines: dict[str, Machine], names: list[str]) -> list[Machine]:
    if unknown := sorted(set(names) - set(machines)):
        raise Problem(f"there is no machine {', '.join(unknown)}, but {', '.join(machines)}")
    return [machine for name, machine in machines.items() if name in names or not names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("up", help="boot machines, those that are not up")
    command.add_argument("machines", nargs="*")
    command.add_argument("--fresh", action="store_true", help="take down what is up first")
    command.add_argument("--inventory", type=Path, help="where to write Ansible's inventory")
    command.set_defaults(command=up)

    command = commands.add_parser("down", help="leave nothing of the run on this host")
    command.set_defaults(command=down)

    command = commands.add_parser("status", help="say what is up; status 1 when nothing is")
    command.set_defaults(command=status)

    command = commands.add_parser("restart", help="shut a machine down and boot its disk again")
    command.add_argument("machine")
    command.add_argument("--kernel", help="a kernel of its image, by its name in matrix.yml")
    command.add_argument("--power-cut", action="store_true", help="do not shut down, stop")
    command.set_defaults(command=restart)

    command = commands.add_parser("console", help="what a machine wrote to its serial console")
    command.add_argument("machine")
    command.set_defaults(command=console)

    command = commands.add_parser("images", help="make the images, those that are not in the cache")
    command.add_argument("machines", nargs="*")
    command.set_defaults(command=build)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
