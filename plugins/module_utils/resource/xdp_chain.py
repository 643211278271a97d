# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The programs that share an interface by a dispatcher, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..bpf.xdp_dispatcher import ACTIONS, SLOTS, VERSION, Slot
from .errors import Failure
from .linked import Program


@dataclass(frozen=True)
class Component:
    """A program in a slot of a dispatcher, or ready for one. ``load_time`` is in ns since boot."""

    program: Program
    slot: Slot
    load_time: int = 0

    def __str__(self) -> str:
        program = self.program
        return f"{program.name} (program {program.id}, priority {self.slot.priority})"

    @property
    def rank(self) -> tuple[int, str, str, int]:
        """What components are ordered by; of equal priority as libxdp breaks ties."""
        return self.slot.priority, self.program.name, self.program.tag, self.load_time

    def with_priority(self, priority: int | None) -> Component:
        """The same with a declared priority, unless none was declared."""
        return (
            self if priority is None else replace(self, slot=replace(self.slot, priority=priority))
        )


@dataclass(frozen=True)
class Chain:
    """A dispatcher as it is. ``problem`` says why its components cannot be told, if so."""

    prog_id: int
    components: tuple[Component, ...] = ()
    version: int = VERSION
    problem: str = ""


def names_of(components: Iterable[Component]) -> list[str]:
    """The components in order, for people."""
    return [str(component) for component in components]


def actions_of(slot: Slot) -> list[str]:
    """The actions after which the next component is called, by name."""
    return [name for number, name in enumerate(ACTIONS) if slot.actions >> number & 1]


def described(component: Component) -> dict[str, Any]:
    """A component as a module returns it."""
    return {
        "prog_id": component.program.id,
        "prog_name": component.program.name,
        "priority": component.slot.priority,
        "chain": actions_of(component.slot),
        "ours": component.program.ours,
    }


def joined(components: Sequence[Component], mine: Component) -> tuple[Component, ...]:
    """The components with ``mine`` among them, in the place of its earlier versions.

    The others keep their order, whatever it is. Raises Failure when there is no slot left.
    """
    others = [each for each in components if not mine.program.supersedes(each.program)]
    if len(others) >= SLOTS:
        raise Failure(
            f"the dispatcher is full: it has {SLOTS} components, {', '.join(names_of(others))}; "
            "unload one of them first"
        )
    at = next((at for at, each in enumerate(others) if each.rank > mine.rank), len(others))
    return (*others[:at], mine, *others[at:])


def same(first: Sequence[Component], second: Sequence[Component]) -> bool:
    """Whether both call the same programs in the same way."""
    return [_essence(each) for each in first] == [_essence(each) for each in second]


def _essence(component: Component) -> tuple[int, Slot]:
    return component.program.id, component.slot
