# SPDX-License-Identifier: GPL-3.0-or-later
"""The four runs that every module has to come through: check, apply, again, check again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import run
import witness

Options = dict[str, Any]
Look = Callable[[], object]


class Report:
    """What was tried, what of it failed and why, and how this kernel provides what."""

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.problems: list[str] = []
        self.features: dict[str, str] = {}
        self._before: witness.State | None = None

    def require(self, title: str, truth: object, seen: object = "") -> bool:
        """Note what was expected of the machine, and whether it is so."""
        self.tried.append(title)
        if not truth:
            self.problems.append(f"{title}: {seen}")
        return bool(truth)

    def quartet(
        self,
        title: str,
        module: str,
        options: Options,
        look: Look | None = None,
        changes: bool = True,
    ) -> run.Result:
        """Converge in four runs. ``look`` asks others: True, or else what they see instead."""
        before = self._before or witness.stable()
        check = run.module(module, options, check=True)
        after_check = witness.settled(before)
        done = run.module(module, options)
        seen = look() if look else True
        # What the rest leaves behind shows when the next one begins.
        self._before = witness.stable() if options.get("state") == "absent" else witness.state()
        again = run.module(module, options)
        check_again = run.module(module, options, check=True)
        problems = list(_wrong(check, done, again, check_again, changes))
        if after_check != before:
            problems.append(f"the check left something behind: {differences(before, after_check)}")
        if seen is not True:
            problems.append(f"others see it otherwise: {seen}")
        self.tried.append(title)
        self.problems += [f"{title} ({module}): {problem}" for problem in problems]
        return done

    def set_up(self, title: str, module: str, options: Options) -> run.Result:
        """Converge once: something that the next one needs, or needs no longer."""
        done = run.module(module, options)
        self.require(title, not done.get("failed"), done.get("msg"))
        self._before = None
        return done

    def refused(
        self, title: str, module: str, options: Options, *words: str, check: bool = True
    ) -> run.Result:
        """It is refused with these words, by a check and in earnest, and nothing is done."""
        before = self._before or witness.stable()
        self.tried.append(title)
        for is_check in (True, False) if check else (False,):
            result = run.module(module, options, check=is_check)
            missing = [word for word in words if word not in str(result.get("msg"))]
            if not result.get("failed") or missing or "Traceback" in str(result):
                how = "a check" if is_check else "a run"
                self.problems.append(
                    f"{title} ({module}): {how} was to be refused with {missing or words}: {result}"
                )
        after = witness.settled(before)
        if after != before:
            self.problems.append(
                f"{title} ({module}): what was refused was done: {differences(before, after)}"
            )
        self._before = after
        return result

    def changed_by_hand(self) -> None:
        """Say that the next state is another, because somebody else has changed the machine."""
        self._before = None

    def answer(self) -> dict[str, Any]:
        """For the playbook."""
        return {"tried": len(self.tried), "problems": self.problems, "features": self.features}


def _wrong(
    check: run.Result, done: run.Result, again: run.Result, check_again: run.Result, changes: bool
) -> list[str]:
    runs = {
        "the check": check,
        "the run": done,
        "the second run": again,
        "the second check": check_again,
    }
    failed = [
        f"{name} failed: {result.get('msg')}"
        for name, result in runs.items()
        if result.get("failed")
    ]
    if failed:
        return failed
    wrong = []
    if check["changed"] is not changes or done["changed"] is not changes:
        wrong.append(f"changed is {check['changed']}, then {done['changed']}, and not {changes}")
    if again["changed"] or check_again["changed"]:
        wrong.append(f"not the same again: {again.get('actions')} {check_again.get('actions')}")
    for name in ("actions", "diff"):
        if check.get(name) != done.get(name):
            wrong.append(f"{name} of the check: {check.get(name)}, of the run: {done.get(name)}")
    return wrong


def differences(before: witness.State, after: witness.State) -> dict[str, object]:
    """What is not the same in both."""
    found: dict[str, object] = {}
    for name in before:
        if before[name] == after[name]:
            continue
        if isinstance(before[name], dict):
            keys = {*before[name], *after[name]}
            found[name] = sorted(
                key for key in keys if before[name].get(key) != after[name].get(key)
            )
        else:
            found[name] = (before[name], after[name])
    return found
