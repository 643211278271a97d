# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: what was gathered, made into HTML by Jinja2, with everything escaped.

The templates are rendered by an environment of its own and not by Ansible's, which does not escape.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from . import accelerators, balancers, figures, sankey
from .model import DRIFTED, IN_SYNC, SILENT, Finding, Host, host, plain

TEMPLATES = Path(__file__).resolve().parents[3] / "playbooks" / "templates" / "report"
_MADE = re.compile(r'<time id="made" datetime="[^"]*">[^<]*</time>')


@dataclass(frozen=True)
class Row:
    """A finding and its host."""

    host: Host
    finding: Finding


@dataclass(frozen=True)
class Asked:
    """What the page is made of besides the hosts. ``made`` is such as ``2026-11-21 22:45 UTC``."""

    title: str
    made: str
    words: Mapping[str, str]
    measured: Mapping[str, Any]


def render(seen: Mapping[str, Mapping[str, Any]], asked: Asked) -> str:
    """The page for the hosts, by name. Raises NoFigures."""
    hosts = [
        host(str(name), number, plain(each)) for number, (name, each) in enumerate(seen.items(), 1)
    ]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, octets=octets, percent=percent, short=short)
    # Ours, and the only things that are not escaped; the page's policy names them by their digests.
    style, script = (
        environment.get_template(name).render() for name in ("style.css.j2", "script.js.j2")
    )
    return environment.get_template("page.html.j2").render(
        **facts(hosts, asked),
        format_count=count,
        format_octets=octets,
        style=Markup(style),
        script=Markup(script),
        policy="; ".join(
            (
                "default-src 'none'",
                f"style-src {digest(style)}",
                f"script-src {digest(script)}",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
    )


def facts(hosts: Sequence[Host], asked: Asked) -> dict[str, Any]:
    """What the templates show."""
    asked_of = [each for each in hosts if not each.problem]
    services = balancers.services(asked_of)
    attached = [item for each in asked_of for item in each.attachments if item.owner == "ours"]
    return {
        "title": asked.title,
        "made": asked.made,
        "hosts": hosts,
        "states": Counter(each.state for each in hosts),
        "kernels": Counter(each.kernel for each in asked_of),
        "rows": [Row(each, finding) for each in asked_of for finding in each.bad],
        "silent": [each for each in hosts if each.problem],
        "stacks": sorted({stack.name for each in asked_of for stack in each.stacks}),
        "usual": usual(asked_of),
        "programs": sum(len(each.programs) for each in asked_of),
        "attachments": len(attached),
        "out_of_place": sum(item.condition != "ok" for item in attached),
        "foreign": [each for each in hosts if any(f.state == "foreign" for f in each.findings)],
        "services": services,
        "balancer_hosts": [each for each in asked_of if each.balancer],
        "balanced": sankey.draw(balancers.flows(asked_of), "packets"),
        "refused": balancers.refused(asked_of),
        "accelerators": accelerators.accelerators(asked_of),
        "accelerated": sankey.draw(accelerators.flows(asked_of), "connections"),
        "reasons": accelerators.reasons(asked_of, asked.words),
        "figures": figures.read(plain(asked.measured)),
        "IN_SYNC": IN_SYNC,
        "DRIFTED": DRIFTED,
        "SILENT": SILENT,
    }


def usual(hosts: Sequence[Host]) -> dict[str, str]:
    """The release of each stack that more than half of its hosts run; "" where none is."""
    running: dict[str, Counter[str]] = {}
    for each in hosts:
        for stack in each.stacks:
            running.setdefault(stack.name, Counter())[stack.running] += 1
    most = {name: found.most_common(1)[0] for name, found in running.items()}
    return {
        name: release if times > running[name].total() / 2 else ""
        for name, (release, times) in most.items()
    }


def digest(text: str) -> str:
    """As Content-Security-Policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def unless_new(page: str, before: str) -> str:
    """The page, or the one before when they differ in nothing but when they were made."""
    return before if _MADE.sub("", before) == _MADE.sub("", page) else page


def count(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


def octets(number: int) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def percent(share: float) -> str:
    """A share; what is neither nothing nor all does not look like it."""
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) else f"{share:.1f} %"


def short(text: str, length: int = 12) -> str:
    """The beginning of a digest."""
    return text[:length]
