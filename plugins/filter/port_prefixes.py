# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ports and port ranges as the keys of a longest-prefix-match map."""

from __future__ import annotations

DOCUMENTATION = r"""
name: port_prefixes
author: The ebpf.fleet authors (@ebpf-fleet)
version_added: 0.1.0
short_description: Turn ports and port ranges into longest-prefix-match keys
description:
  - A port map of type C(lpm_trie) holds prefixes of the 16-bit port. Any range of ports is a few of
    them, at most 30, so a range costs neither thousands of entries nor a loop in the program.
  - Ranges that overlap or touch are merged, and the result is the shortest that covers them, in
    ascending order. The order and the repetitions of the input do not matter.
options:
  _input:
    description:
      - Ports from 1 to 65535, and ranges written as V(first-last), both included.
    type: list
    elements: raw
    required: true
  value:
    description:
      - What every key is to hold. With it, the result is a list of map entries instead of keys.
    type: raw
seealso:
  - module: ebpf.fleet.bpf_map_entries
"""

EXAMPLES = r"""
- name: The keys of a port and a range
  ansible.builtin.debug:
    msg: "{{ [80, '8000-8015'] | ebpf.fleet.port_prefixes }}"
  # => [{"prefixlen": 16, "port": 80}, {"prefixlen": 12, "port": 8000}]

- name: The ports are those of the service
  ebpf.fleet.bpf_map_entries:
    map: web/policy_ports
    entries: "{{ [80, '8000-8015'] | ebpf.fleet.port_prefixes(value=1) }}"
    purge: true
"""

RETURN = r"""
_value:
  description:
    - One dictionary a prefix; with O(value), one entry with C(key) and C(value) a prefix.
    - The port is a number as people write it; the map's type says in which byte order it is stored.
  type: list
  elements: dict
  contains:
    prefixlen:
      description: How many of the leading bits of the port count, from 0 to 16.
      type: int
    port:
      description: The first port that the prefix covers.
      type: int
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible.errors import AnsibleFilterError

PORT_BITS = 16
LAST_PORT = (1 << PORT_BITS) - 1
_ITEM = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def port_prefixes(items: Any, value: Any = None) -> list[dict[str, Any]]:
    """The keys that cover the ports, or the entries when there is a value for each.

    Raises AnsibleFilterError that names the item that is no port.
    """
    if isinstance(items, (str, bytes, dict)) or not isinstance(items, Iterable):
        raise AnsibleFilterError(f"port_prefixes needs a list of ports and ranges, not {items!r}")
    keys = [
        {"prefixlen": prefixlen, "port": port}
        for first, last in merged(ports_of(item) for item in items)
        for prefixlen, port in prefixes(first, last)
    ]
    return keys if value is None else [{"key": key, "value": value} for key in keys]


def ports_of(item: Any) -> tuple[int, int]:
    """First and last port of an item: a number, its text, or ``first-last``."""
    match = None if isinstance(item, (bool, float)) else _ITEM.fullmatch(str(item))
    if match is None:
        raise AnsibleFilterError(
            f"{item!r} is no port: write a number from 1 to {LAST_PORT}, or a range such as 80-99"
        )
    first = int(match.group(1))
    last = int(match.group(2) or first)
    for port in (first, last):
        if not 1 <= port <= LAST_PORT:
            raise AnsibleFilterError(f"{item!r} is no port: {port} is not from 1 to {LAST_PORT}")
    if first > last:
        raise AnsibleFilterError(f"{item!r} is no range of ports: write {last}-{first}")
    return first, last


def merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges in ascending order, those that overlap or touch made one."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(result[-1][1], last))
        else:
            result.append((first, last))
    return result


def prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest (prefixlen, port) that cover exactly the ports from first to last."""
    while first <= last:
        # The largest aligned block that starts here and does not reach beyond the last port.
        size = first & -first or 1 << PORT_BITS
        while first + size - 1 > last:
            size >>= 1
        yield PORT_BITS - size.bit_length() + 1, first
        first += size


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, Any]]]]:
        """The filters of this file by name."""
        return {"port_prefixes": port_prefixes}
