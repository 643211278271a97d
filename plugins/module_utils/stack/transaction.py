# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""A whole stack brought into its state, or nothing of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .manifest import Manifest
from .plan import Plan

Resolve = Callable[[str], str]  # SHA-256 in hex → path of a file with that content
Moment = Callable[[Plan], None]  # a part of the transaction that is somebody else's


@dataclass(frozen=True)
class Result:
    """What was done, or in check mode would be.

    ``plan``: for each resource with something to do ``{resource, target, actions}``;
    ``resources``: what each resource's module would return, in the declared order.
    """

    changed: bool
    actions: tuple[str, ...] = ()
    diff: Mapping[str, Any] = field(default_factory=lambda: {"before": {}, "after": {}})
    warnings: tuple[str, ...] = ()
    plan: tuple[Mapping[str, Any], ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()


def converge(
    manifest: Manifest,
    resolve: Resolve,
    previous: Sequence[Manifest] = (),
    check: bool = False,
    begin: Moment = lambda plan: None,
    commit: Moment = lambda plan: None,
) -> Result:
    """Bring the stack into its state, all of it or nothing; the caller holds the host's lock.

    ``previous`` are the manifests that may have left something here: what they declared and this
    one does not is taken away. ``begin`` runs inside the journal before the first step, ``commit``
    after the kernel was read again, both only when there is something to do and never in check
    mode; what they raise undoes everything. Raises Failure, with ``details["undone"]``.
    """
    raise NotImplementedError


def remove(
    manifests: Sequence[Manifest],
    check: bool = False,
    begin: Moment = lambda plan: None,
    commit: Moment = lambda plan: None,
    resources: Sequence[Mapping[str, Any]] = (),
    drain: Sequence[Mapping[str, Any]] = (),
    name: str = "",
) -> Result:
    """Take the stack away: drain it first, then all of it in the reverse order.

    ``manifests``: what may be here, the active one first, perhaps none (then ``name`` says which
    stack). ``resources`` and ``drain``, as in a manifest's document, take the place of those of the
    same identity. It only goes forward: a failure leaves what is done done, and the next run goes
    on. Needs no object. ``begin`` and ``commit`` as in converge.
    """
    raise NotImplementedError
