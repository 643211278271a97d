# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""What the verdicts of programs that look at packets are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import Failure

WORDS = ("pass", "drop", "tx", "redirect", "aborted")


@dataclass(frozen=True)
class Verdicts:
    """Of one program type. ``link_layer``: the program sees the Ethernet header.

    ``words`` name the numbers, of which several may mean the same; ``others`` any further number.
    """

    words: Mapping[str, tuple[int, ...]]
    link_layer: bool
    others: str = ""

    def word(self, number: int) -> str:
        """What the number means, or the number."""
        for word, numbers in self.words.items():
            if number in numbers:
                return word
        return self.others or str(number)


# TC_ACT_OK and _UNSPEC, _SHOT, _REDIRECT: include/uapi/linux/pkt_cls.h
_TC = Verdicts({"pass": (0, -1), "drop": (2,), "redirect": (7,)}, link_layer=True)

TYPES = {
    # enum xdp_action, include/uapi/linux/bpf.h
    "xdp": Verdicts(
        {"pass": (2,), "drop": (1,), "tx": (3,), "redirect": (4,), "aborted": (0,)},
        link_layer=True,
    ),
    "sched_cls": _TC,
    "sched_act": _TC,
    # 2 and 3 on egress: with notice of congestion
    "cgroup_skb": Verdicts({"pass": (1, 3), "drop": (0, 2)}, link_layer=False),
    # how many bytes to keep
    "socket_filter": Verdicts({"drop": (0,)}, link_layer=False, others="pass"),
}


def of_type(prog_type: str) -> Verdicts:
    """The verdicts of a program type. Raises Failure for one that takes no packets."""
    if prog_type not in TYPES:
        raise Failure(
            f"{prog_type} programs cannot be run on packets; those that can are "
            f"{', '.join(sorted(TYPES))}"
        )
    return TYPES[prog_type]


def require_known(expected: str, prog_type: str) -> None:
    """Refuse an expectation that a program of this type can never meet."""
    verdicts = of_type(prog_type)
    known = {*verdicts.words, *([verdicts.others] if verdicts.others else [])}
    if not is_number(expected) and expected not in known:
        raise Failure(
            f"verdict: {expected!r} is none of {prog_type} programs, which say "
            f"{', '.join(sorted(known))} or a number"
        )


def is_number(expected: str) -> bool:
    """Whether an expectation names a verdict by its number."""
    return expected.lstrip("-").isascii() and expected.lstrip("-").isdigit()


def meets(number: int, expected: str, prog_type: str) -> bool:
    """Whether a verdict is the expected one, a word or a number."""
    if is_number(expected):
        return number == int(expected)
    return of_type(prog_type).word(number) == expected
