# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The part that all modules share: parameters in, converge, result out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol, TypeVar

from .resource.engine import Kind, converge
from .resource.errors import Failure, from_os_error


class Module(Protocol):
    """What is used of AnsibleModule."""

    params: dict[str, Any]
    check_mode: bool

    def exit_json(self, **result: Any) -> NoReturn:
        """End with a result."""

    def fail_json(self, msg: str, **result: Any) -> NoReturn:
        """End with an error."""

    def warn(self, warning: str) -> None:
        """Tell the operator."""


DesiredT = TypeVar("DesiredT")
ObservedT = TypeVar("ObservedT")


def run(
    module: Module,
    kind: Kind[DesiredT, ObservedT],
    desired: Callable[[dict[str, Any]], DesiredT],
) -> NoReturn:
    """Converge what ``desired`` makes of the parameters, and end the module with the outcome."""
    try:
        require_text(module.params)
        outcome = converge(
            kind, desired(module.params), module.check_mode, module.params["lock_timeout"]
        )
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "bpf(2)"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(
        changed=outcome.changed, actions=outcome.actions, diff=outcome.diff, **outcome.report
    )


def require_text(params: Mapping[str, Any]) -> None:
    """Refuse what neither a path nor the kernel can hold: a zero byte, half a surrogate pair."""
    for option, value in params.items():
        for text in _texts(value):
            if "\0" in text or text != text.encode("utf-8", "ignore").decode():
                raise Failure(f"{option}: {text!a} holds a character that is no text")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
