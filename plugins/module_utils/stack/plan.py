# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The plan of a whole stack, made before anything of it is changed.

What later resources find depends on what earlier ones make. So in a private view of the host
programs and maps are really made, verified by this very kernel, and the rest is planned against
them. The objects are kept, and get their names on the host when the plan is carried out: nothing is
loaded twice, and what was planned is what is done.

Data are named tuples in the modules that every run reads: to make a dataclass takes five times as
long, and that would be the longest part of a run over an unchanged host.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ..bpf import files, pins
from ..bpf.syscall import Fd
from ..resource import paths
from ..resource.engine import Change, Kind
from ..resource.errors import Failure, from_os_error
from .kinds import ADAPTERS, Adapter
from .manifest import Manifest, Resource, is_reference
from .order import ordered

Resolve = Callable[[str], str]  # SHA-256 in hex → path of a file with that content


class Bound(NamedTuple):
    """A resource with its kind, and what its options declare. A gate has neither."""

    resource: Resource
    adapter: Adapter
    kind: Kind[Any, Any] | None
    desired: Any

    @property
    def is_gate(self) -> bool:
        """Whether it changes nothing, and lets the others change something."""
        return self.kind is None


class Seen(NamedTuple):
    """A resource as it is, and what it takes to make it as declared."""

    bound: Bound
    observed: Any
    changes: tuple[Change, ...]

    @property
    def report(self) -> Mapping[str, Any]:
        """What the resource's own module would return."""
        if self.bound.kind is None:
            return {}
        if self.bound.adapter.brief is not None:
            return self.bound.adapter.brief(self.bound.desired)
        return self.bound.kind.report(self.bound.desired, self.observed)


class Step(NamedTuple):
    """What is to be done for one resource, and how. ``hook``: traffic may notice."""

    label: str
    kind: str
    changes: tuple[Change, ...]
    do: Callable[[], None]
    hook: bool = False


class Plan(NamedTuple):
    """All that is to be done, in its order."""

    steps: tuple[Step, ...] = ()

    @property
    def touches_hooks(self) -> bool:
        """Whether it changes which program meets which packet or socket."""
        return any(step.hook for step in self.steps)


@contextlib.contextmanager
def named(label: str) -> Iterator[None]:
    """Let every error say which resource it is about."""
    try:
        yield
    except Failure as failure:
        raise Failure(f"{label}: {failure}", **{**failure.details, "step": label}) from failure
    except OSError as error:
        unforeseen = from_os_error(error, f"{label}: {error.filename or 'system call'}")
        raise Failure(str(unforeseen), **unforeseen.details, step=label) from error


def bind_all(manifest: Manifest, resolve: Resolve) -> tuple[Bound, ...]:
    """The resources in the order in which to make them, all options checked. Raises Failure."""
    return tuple(
        bind(each, _of_the_stack(each, manifest, resolve)) for each in ordered(manifest.resources)
    )


def _of_the_stack(resource: Resource, manifest: Manifest, resolve: Resolve) -> dict[str, Any]:
    """Options that the stack says, and objects by their path on this host."""
    if resource.kind != "bpf_prog":
        return {}
    found = {"stack": manifest.name, "release": manifest.release}
    for option in ("object", "source"):
        if is_reference(resource.params.get(option)):
            found[option] = resolve(resource.params[option].partition(":")[2])
    return found


def bind(resource: Resource, more: Mapping[str, Any] = MappingProxyType({})) -> Bound:
    """Check a resource's options, with some in the place of its own. Raises Failure."""
    adapter = ADAPTERS[resource.kind]
    if adapter.load is None:
        return Bound(resource, adapter, None, None)
    with named(str(resource)), _complete():
        kind, desired = adapter.load()
        params = {**resource.params, **more, "state": "present"}
        return Bound(resource, adapter, kind, desired(params))


def has_needs(resource: Resource) -> bool:
    """Whether everything that the resource needs is pinned."""
    return all(map(os.path.lexists, ADAPTERS[resource.kind].needs(resource.params)))


@contextlib.contextmanager
def _complete() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise Failure(
            f"the option {error} is missing; a manifest holds every option of each resource"
        ) from error


def look(bound: Bound) -> Seen:
    """Read what is there of the resource, and plan. Raises Failure."""
    if bound.kind is None:
        return Seen(bound, None, ())
    with named(str(bound.resource)):
        observed = bound.kind.observe(bound.desired)
        return Seen(bound, observed, tuple(bound.kind.plan(bound.desired, observed)))


def as_found(bounds: Iterable[Bound]) -> tuple[Seen, ...] | None:
    """Every resource as it is and what it takes, read from the host alone.

    None when that cannot be told without a view: something is to be mounted or made that others may
    depend on, or something cannot even be read, perhaps for that reason.
    """
    found = []
    for bound in bounds:
        try:
            seen = look(bound)
        except Failure:
            return None
        if seen.changes and (bound.adapter.staged or bound.resource.kind == "bpffs"):
            return None
        found.append(seen)
    return tuple(found)


class Made(NamedTuple):
    """What the view has at a path afterwards: an object, or nothing."""

    path: str
    fd: Fd | None = None
    mode: int = 0


class Whole(NamedTuple):
    """Every resource as it will be found, and the steps that lead from what there is.

    ``unseen`` are the ids of programs that the host does not know yet.
    """

    seen: tuple[Seen, ...]
    steps: tuple[Step, ...]
    extra: tuple[Step, ...]  # what the caller planned in the view, too
    warnings: tuple[str, ...]
    unseen: frozenset[int]


Extra = Callable[[Sequence[Seen], Sequence[Step]], tuple[Sequence[Step], Sequence[str]]]


@contextlib.contextmanager
def whole(bounds: Sequence[Bound], found: Sequence[Seen] | None, extra: Extra) -> Iterator[Whole]:
    """Plan everything; the objects that were made last as long as the context does.

    ``found`` is what ``as_found`` tells: then no view is needed. ``extra`` plans what comes after
    the resources. Raises Failure, with nothing changed.
    """
    with contextlib.ExitStack() as held:
        if found is not None:
            seen, steps = found, [step for each in found for step in _steps_as_found(each)]
            more, warnings = extra(seen, steps)
        else:
            mounts = [look(bound) for bound in bounds if bound.resource.kind == "bpffs"]
            for each in mounts:
                _rehearse(each)
            with _viewed([each.bound.desired.path for each in mounts if each.changes]):
                seen, steps = _in_view(bounds, mounts, held)
                more, warnings = extra(seen, steps)
        if not more and all(step.kind == "bpf_test_run" for step in steps):
            steps = []  # gates alone: there is nothing to let through
        unseen = frozenset(_loaded(seen)) if found is None else frozenset()
        yield Whole(tuple(seen), tuple(steps), tuple(more), tuple(warnings), unseen)


def _loaded(seen: Iterable[Seen]) -> Iterator[int]:
    for each in seen:
        if each.bound.resource.kind == "bpf_prog" and each.changes:
            yield from (item.program.id for item in each.observed.programs.values())


def _steps_as_found(seen: Seen) -> Iterator[Step]:
    if seen.bound.is_gate:
        yield _gate(seen.bound)
    elif seen.changes:
        _require_needs(seen.bound)
        _rehearse(seen)
        yield direct(seen)


def _in_view(
    bounds: Sequence[Bound], mounts: Sequence[Seen], held: contextlib.ExitStack
) -> tuple[list[Seen], list[Step]]:
    known = {each.bound.resource.index: each for each in mounts}
    seen, steps = [], []
    for bound in bounds:
        if bound.resource.index in known:
            seen.append(known[bound.resource.index])
            steps += [direct(seen[-1])] if seen[-1].changes else []
            continue
        _require_needs(bound)
        each = look(bound)
        seen.append(each)
        if each.changes and bound.adapter.staged:
            steps.append(_stage(each, held))
            seen[-1] = _settled(each)
        else:
            steps += _steps_as_found(each)
    return seen, steps


@contextlib.contextmanager
def _viewed(points: Sequence[str]) -> Iterator[None]:
    from ..bpf import view  # an unchanged host needs none

    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(view.private(points))
        except OSError as error:
            advice = "planning a stack needs CAP_SYS_ADMIN, and a mount namespace of its own"
            raise from_os_error(error, "make a private view of the host", advice) from error
        yield


def _require_needs(bound: Bound) -> None:
    """What is planned against what the resources before have made has to have all it needs."""
    resource = bound.resource
    for pin in bound.adapter.needs(resource.params):
        if not os.path.lexists(pin):
            paths.check_parent(pin)
            raise Failure(
                f"{resource} needs {pin}: nothing is pinned there, and no resource of this stack "
                "makes it; correct the path, or declare what makes it (bpf_prog with pin, pin_dir, "
                "maps or pin_maps; bpf_map_pin)",
                step=str(resource),
            )


def _rehearse(seen: Seen) -> None:
    if seen.changes and seen.bound.kind is not None:
        with named(str(seen.bound.resource)):
            seen.bound.kind.rehearse(seen.bound.desired, seen.changes)


def direct(seen: Seen) -> Step:
    """The step that makes of the resource what was declared."""
    bound = seen.bound

    def do() -> None:
        if bound.kind is not None:
            bound.kind.apply(bound.desired, seen.changes)

    label = str(bound.resource)
    return Step(label, bound.resource.kind, seen.changes, do, bound.adapter.hook)


def _stage(seen: Seen, held: contextlib.ExitStack) -> Step:
    """Make it in the view, and keep what was made."""
    bound = seen.bound
    with named(str(bound.resource)):
        if bound.kind is not None:
            bound.kind.apply(bound.desired, seen.changes)
        made = [_made(path, held) for path in dict.fromkeys(each.target for each in seen.changes)]

    def do() -> None:
        for each in made:
            _give_name(each)

    label = str(bound.resource)
    return Step(label, bound.resource.kind, seen.changes, do, bound.adapter.hook)


def _settled(seen: Seen) -> Seen:
    """What was made in the view, read again; the changes stay those that the host needs."""
    now = look(seen.bound)
    if now.changes:
        raise still_to_do(now)
    return Seen(seen.bound, now.observed, seen.changes)


def still_to_do(seen: Seen) -> Failure:
    """The kernel took every step and yet does not show the result."""
    steps = ", ".join(str(change) for change in seen.changes)
    return Failure(
        f"{seen.bound.resource}: the kernel accepted every step but does not show the result; "
        f"still to do: {steps}; another resource of the stack, or something else on this host, "
        "changes the same target: find it with bpf_info",
        step=str(seen.bound.resource),
    )


def _made(path: str, held: contextlib.ExitStack) -> Made:
    if not os.path.lexists(path):
        return Made(path)
    fd = held.enter_context(pins.get(path))
    return Made(path, fd, stat.S_IMODE(os.stat(path).st_mode))


def _give_name(made: Made) -> None:
    """Let the host have at the path what the view has there."""
    if made.fd is None:
        pins.remove(made.path)
        paths.prune_home(made.path)
        return
    paths.make_parent(made.path)
    pins.replace(made.fd, made.path)
    if stat.S_IMODE(os.stat(made.path).st_mode) != made.mode:
        files.set_mode(made.path, made.mode)


def _gate(bound: Bound) -> Step:
    """Packets that the program has to treat as expected, before any packet meets it."""
    from ..resource import test_run

    label = str(bound.resource)
    with named(label), _complete():
        request = test_run.request(bound.resource.params)

    def do() -> None:
        problems = test_run.run(request).problems()
        if problems:
            raise Failure(f"{request.pin} does not do what is expected of it:\n{problems}")

    packets = len(request.packets)
    action = f"try {packets} {'packet' if packets == 1 else 'packets'} on"
    return Step(label, bound.resource.kind, (Change(action, request.pin),), do)
