# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What it takes to run beside other XDP programs, or to leave them: pure functions of values.

A dispatcher is never changed. A new one is made with the components that there are to be, and
takes the old one's place at the interface at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from . import xdp_plan
from .engine import Change
from .errors import Failure
from .xdp_chain import Chain, Component, joined, names_of, same
from .xdp_plan import Desired, Holder, Observed, Step


def concern(desired: Desired, seen: Observed) -> bool:
    """Whether the attachment is a matter of components, and not of a program on its own.

    A program that is not loaded yet is taken for a component where it could not be anything else.
    """
    if desired.present and seen.program is not None:
        return seen.program.type == "ext"
    return not desired.link and seen.chain is not None


def plan(desired: Desired, seen: Observed) -> Sequence[Change]:
    """What leads to the declared component. Raises Failure when something forbids it."""
    return list(_plan_present(desired, seen) if desired.present else _plan_absent(desired, seen))


def _plan_present(desired: Desired, seen: Observed) -> Iterator[Change]:
    _check_options(desired)
    holder = seen.holder(desired)
    chain = _chain_of(seen, holder)
    if holder is not None:
        _check_holder(desired, seen, holder, chain)
    there = chain.components if chain else ()
    if seen.component is None:
        yield _predicted(desired, holder, there)
        return
    mine = seen.component.with_priority(desired.priority)
    wanted = joined(there, mine)
    if same(there, wanted):
        return
    known = any(mine.program.supersedes(each.program) for each in there)
    before = _shown(holder, there)
    mode = xdp_plan.mode_of(desired, seen, holder)
    after = {"mode": mode, "components": names_of(wanted)}
    step = Step("components", holder, wanted, chain.version if chain else 0)
    action = "replace component" if known else "add component"
    yield Change(action, desired.hook, before, after, _slow(desired, seen, holder), step)


def _check_options(desired: Desired) -> None:
    if desired.link:
        raise Failure(
            f"{desired.prog} is a component (a program of type ext), which a dispatcher calls and "
            "no link of its own attaches; leave out the option link"
        )
    if desired.mode == "offload":
        raise Failure("components are not offloaded; declare mode: auto, native or generic")


def _chain_of(seen: Observed, holder: Holder | None) -> Chain | None:
    chain = seen.chain
    return chain if chain and holder and chain.prog_id == holder.program.id else None


def _check_holder(desired: Desired, seen: Observed, holder: Holder, chain: Chain | None) -> None:
    if chain is None:
        xdp_plan.refuse_foreign(desired, seen, holder)
    elif chain.problem:
        raise Failure(
            f"{holder.program} holds {desired.hook} and is a dispatcher, but {chain.problem}",
            prog_id=holder.program.id,
        )
    if holder.link_id:
        raise Failure(
            f"link {holder.link_id} holds {desired.hook} with {holder.program}, and a dispatcher "
            "cannot take its place without a gap; detach that link first (ours: state: absent with "
            "link)",
            prog_id=holder.program.id,
        )
    if desired.mode not in ("auto", holder.mode):
        raise Failure(
            f"{holder.program} runs on {desired.hook} in {holder.mode} mode, and so do all that "
            f"share the interface; declare mode: auto or {holder.mode}, or take all of them off "
            "the interface first",
            prog_id=holder.program.id,
        )


def _slow(desired: Desired, seen: Observed, holder: Holder | None) -> str:
    if holder is None and desired.mode == "auto" and seen.native is False:
        return f"the driver of {desired.interface} has no native XDP: attached in generic mode"
    return ""


def _shown(holder: Holder | None, components: Sequence[Component]) -> dict[str, Any] | None:
    if holder is None:
        return None
    if not components:
        return {"mode": holder.mode, "program": holder.program.name, "prog_id": holder.program.id}
    return {"mode": holder.mode, "components": names_of(components)}


def _predicted(desired: Desired, holder: Holder | None, there: Sequence[Component]) -> Change:
    shown = _shown(holder, there)
    after = {**(shown or {}), "components": [*names_of(there), desired.prog]}
    warning = (
        f"no program is pinned at {desired.prog} yet; a real run needs it, loaded with type: ext"
    )
    return Change("add component", desired.hook, shown, after, warning, Step("missing"))


def _plan_absent(desired: Desired, seen: Observed) -> Iterator[Change]:
    """The components that are meant leave; what else is at the interface is judged by itself."""
    holder = next((each for each in seen.holders if _chain_of(seen, each)), None)
    chain = _chain_of(seen, holder)
    if holder is None or chain is None or chain.problem:
        yield from xdp_plan.plan(desired, seen)
        return
    there = chain.components
    stay = tuple(each for each in there if not _is_meant(desired, seen, each))
    if len(stay) < len(there):
        after = _shown(holder, stay) if stay else None
        step = Step("components", holder, stay, chain.version)
        before = _shown(holder, there)
        yield Change("remove component", desired.hook, before, after, detail=step)
    rest = tuple(each for each in seen.holders if each is not holder)
    yield from xdp_plan.plan(desired, replace(seen, holders=rest))


def _is_meant(desired: Desired, seen: Observed, component: Component) -> bool:
    """Whether a removal means this one; once the pin is gone it is known by its name (15 bytes)."""
    program = component.program
    if desired.force:
        return True
    if not desired.prog:
        return program.ours
    if seen.program is not None:
        return replace(seen.program, type=program.type).supersedes(program)
    return program.ours and program.name == os.path.basename(desired.prog)[:15]


def mine(desired: Desired, seen: Observed) -> Component | None:
    """The declared program, where a dispatcher calls it."""
    components = seen.chain.components if seen.chain else ()
    found = (each for each in components if seen.program and each.program.id == seen.program.id)
    return next(found, None) if not desired.link else None
