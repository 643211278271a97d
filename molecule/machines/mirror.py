# Copyright (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian mirror that this host's apt is configured with, for other releases of Debian."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from host import output
from problem import Problem

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
FORMAT = "$(REPO_URI) $(COMPONENT) $(LABEL)"
# What of the host's configuration decides whether a mirror can be reached and believed.
OPTIONS = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")


def mirror() -> str:
    """Where Debian's main component comes from. Raises Problem when apt knows no such place."""
    for line in output(
        "apt-get", "indextargets", "--format", FORMAT, "Created-By: Packages"
    ).splitlines():
        address, component, label = line.split(" ", 2)
        if component == "main" and label == "Debian":
            return address
    raise Problem("apt knows no Debian mirror: configure one and run apt-get update")


def sources(suites: Iterable[str]) -> str:
    """The contents of a sources.list with the main component of these suites."""
    address = mirror()
    return "".join(f"deb [signed-by={KEYRING}] {address} {suite} main\n" for suite in suites)


def options() -> Iterator[str]:
    """The host's settings of apt that are needed to use the mirror, as lines of an apt.conf."""
    for line in output("apt-config", "dump").splitlines():
        name, dummy, value = line.partition(" ")
        if name.startswith(OPTIONS) and value != '"";':
            yield line
