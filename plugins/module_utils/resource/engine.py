# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""Observe, plan, apply: the one way in which every kind of resource is converged.

``changed``, the diff and check mode all come from the plan, so they cannot disagree. After the
changes were applied the kernel is read again, and a plan that is not empty then is a failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .errors import Failure, require_root
from .lock import host_lock


@dataclass(frozen=True)
class Change:
    """One step: what it does to which target, and the target before and after, for the diff.

    ``action`` is a verb and its object ("load program"), ``target`` a pin or a hook. ``detail``
    is what apply needs and nobody else reads.
    """

    action: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    warning: str = ""
    detail: Any = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


DesiredT_contra = TypeVar("DesiredT_contra", contravariant=True)
ObservedT = TypeVar("ObservedT")


class Kind(Protocol[DesiredT_contra, ObservedT]):
    """What a kind of resource provides; each file of this package is one."""

    def observe(self, desired: DesiredT_contra) -> ObservedT:
        """Read the kernel. Raises Failure when the question itself makes no sense."""

    def plan(self, desired: DesiredT_contra, observed: ObservedT) -> Sequence[Change]:
        """The changes that lead from observed to desired: a pure function."""

    def rehearse(self, desired: DesiredT_contra, changes: Sequence[Change]) -> None:
        """Prove, leaving nothing behind, that the kernel would accept the changes."""

    def apply(self, desired: DesiredT_contra, changes: Sequence[Change]) -> None:
        """Carry the changes out, all or none where the kernel allows."""

    def report(self, desired: DesiredT_contra, observed: ObservedT) -> Mapping[str, Any]:
        """What the module returns about the resource as it now is."""


@dataclass(frozen=True)
class Outcome:
    """What converging did, or in check mode would do."""

    changes: tuple[Change, ...]
    report: Mapping[str, Any]

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return bool(self.changes)

    @property
    def actions(self) -> list[str]:
        """The steps in their order, for people."""
        return [str(change) for change in self.changes]

    @property
    def warnings(self) -> list[str]:
        """What an operator has to know about the steps, such as a gap in service."""
        return [change.warning for change in self.changes if change.warning]

    @property
    def diff(self) -> dict[str, dict[str, Any]]:
        """Each changed target before and after."""
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        for change in self.changes:
            before.setdefault(change.target, change.before)
            after[change.target] = change.after
        return {"before": before, "after": after}


def converge(
    kind: Kind[DesiredT_contra, ObservedT],
    desired: DesiredT_contra,
    check: bool,
    lock_timeout: int = 60,
) -> Outcome:
    """Bring one resource into its desired state, or in check mode say what that would take.

    Raises Failure, with nothing changed or with the state that the next run converges from.
    """
    require_root()
    with host_lock(lock_timeout):
        observed = kind.observe(desired)
        changes = tuple(kind.plan(desired, observed))
        if changes and check:
            kind.rehearse(desired, changes)
        if not changes or check:
            return Outcome(changes, kind.report(desired, observed))
        kind.apply(desired, changes)
        observed = kind.observe(desired)
        left = kind.plan(desired, observed)
        if left:
            steps = ", ".join(str(change) for change in left)
            raise Failure(
                f"the kernel accepted every step but does not show the result; still to do: {steps}"
                "; something else is changing the same target: find it with bpf_info"
            )
        return Outcome(changes, kind.report(desired, observed))
