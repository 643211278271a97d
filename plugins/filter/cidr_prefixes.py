# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Networks as the keys of a longest-prefix-match map of IPv6 addresses."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cidr_prefixes
author: The ebpf.fleet authors (@ebpf-fleet)
version_added: 0.1.0
short_description: Turn CIDRs of both families into longest-prefix-match keys
description:
  - A map of type C(lpm_trie) whose key is an IPv6 address holds networks of both families. An IPv4
    network is v4-mapped, so C(10.0.0.0/8) is V(::ffff:10.0.0.0) with 96 + 8 bits.
  - Networks inside others are dropped, and neighbours that make one network are merged. The order
    and the repetitions of the input do not matter.
options:
  _input:
    description:
      - Networks in CIDR notation, IPv4 and IPv6. An address alone is the network of that address.
    type: list
    elements: str
    required: true
  value:
    description:
      - What every key is to hold. With it, the result is a list of map entries instead of keys.
    type: raw
seealso:
  - module: ebpf.fleet.bpf_map_entries
"""

EXAMPLES = r"""
- name: The keys of two networks
  ansible.builtin.debug:
    msg: "{{ ['10.0.0.0/8', 'fd00::/8'] | ebpf.fleet.cidr_prefixes }}"
  # => [{"prefixlen": 104, "address": "::ffff:10.0.0.0"}, {"prefixlen": 8, "address": "fd00::"}]

- name: The networks are those of the service
  ebpf.fleet.bpf_map_entries:
    map: web/policy_cidrs
    entries: "{{ ['127.0.0.0/8', '::1'] | ebpf.fleet.cidr_prefixes(value=1) }}"
    purge: true
"""

RETURN = r"""
_value:
  description: One dictionary a network; with O(value), one entry with C(key) and C(value).
  type: list
  elements: dict
  contains:
    prefixlen:
      description: How many of the leading bits of the IPv6 address count, from 0 to 128.
      type: int
    address:
      description: The network's first address, as IPv6.
      type: str
"""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError

_MAPPED_BITS = 96  # RFC 4291 section 2.5.5.2: ::ffff:0:0/96
_MAPPED = 0xFFFF << 32


def cidr_prefixes(items: Any, value: Any = None) -> list[dict[str, Any]]:
    """The keys that cover the networks, or the entries when there is a value for each.

    Raises AnsibleFilterError that names the item that is no CIDR.
    """
    if isinstance(items, (str, bytes, dict)) or not isinstance(items, Iterable):
        raise AnsibleFilterError(f"cidr_prefixes needs a list of CIDRs, not {items!r}")
    networks = ipaddress.collapse_addresses([network_of(item) for item in items])
    keys = [
        {"prefixlen": network.prefixlen, "address": text_of(network.network_address)}
        for network in networks
    ]
    return keys if value is None else [{"key": key, "value": value} for key in keys]


def network_of(item: Any) -> ipaddress.IPv6Network:
    """The network that a text names, IPv4 as v4-mapped."""
    # ipaddress would take the number 1 for 0.0.0.1.
    text = item if isinstance(item, str) else ""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise AnsibleFilterError(f"{item!r} is no CIDR: {_advice(text)}") from None
    if isinstance(network, ipaddress.IPv6Network):
        return network
    mapped = ipaddress.IPv6Address(_MAPPED | int(network.network_address))
    return ipaddress.IPv6Network((mapped, _MAPPED_BITS + network.prefixlen))


def _advice(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return "write a network such as 10.0.0.0/8 or fd00::/8, or an address"
    return f"it has bits set beyond its length; write {network}"


def text_of(address: ipaddress.IPv6Address) -> str:
    """The address as text, a v4-mapped one with dots, which not every Python does by itself."""
    mapped = address.ipv4_mapped
    return f"::ffff:{mapped}" if mapped is not None else str(address)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., list[dict[str, Any]]]]:
        """The filters of this file by name."""
        return {"cidr_prefixes": cidr_prefixes}
