#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare what a BPF map holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_map_entries
short_description: Declare what a BPF map holds
version_added: 0.1.0
description:
  - Writes the declared entries into a pinned map, changes those that differ, and leaves alone those
    that are right. The order of O(entries) means nothing.
  - Keys and values are written in the terms of the C types that the program's object gave the map
    (its BTF). O(key_format) and O(value_format) describe them where there is no BTF; without
    either they are strings of hexadecimal bytes, and an array's key is its index.
  - All entries are written or none. When the kernel refuses one, because the map is full for
    example, the earlier writes are undone.
  - Takes maps of type V(hash), V(array) and V(lpm_trie), their LRU and per-CPU kinds, and
    V(devmap), V(devmap_hash) and V(cpumap) with values of four bytes. Of others, such as sockmaps,
    the values are objects, not data.
options:
  map:
    description: Pin of the map. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    required: true
  entries:
    description:
      - The entries. Declaring one key twice is an error.
    type: list
    elements: dict
    default: []
    suboptions:
      key:
        description:
          - The key, in the terms of its type.
          - In a map of type V(lpm_trie) it may be written as C(value/length), such as
            V(10.0.0.0/8) or V(80/16), where one value follows the prefix length. An IPv4 prefix in
            an IPv6 address is mapped and 96 bits longer.
        type: raw
        required: true
      value:
        description:
          - The value, in the terms of its type. Needed unless O(state=absent).
          - A member of a struct that is left out is zero, and so is padding.
          - In a per-CPU map, one value for all CPUs, or a list with one for each possible CPU.
        type: raw
  key_format:
    description:
      - What a key consists of, one word a field, in the order of memory and with nothing in
        between, C(u8 u16 u32 u64 s8 s16 s32 s64) in native byte order, C(be16 be32 be64) in network
        byte order, C(ipv4), C(ipv6), C(mac), C(string[N]), C(hex[N]), and C(pad[N]) for bytes that
        are not used.
      - A key of several fields is written as a list. Goes before the map's BTF.
    type: list
    elements: str
  value_format:
    description: What a value consists of, as in O(key_format).
    type: list
    elements: str
  purge:
    description:
      - Remove entries that are not declared. In an array, whose entries are always there, set them
        to zero.
    type: bool
    default: false
notes:
  - O(state=absent) removes the declared keys; in an array, it sets them to zero.
  - Integers may be written as numbers, or as strings in decimal or with C(0x), since templates make
    strings. A number for a type with a byte order (C(__be16), C(__be32), C(__be64)) is converted.
    C(__be32) takes a dotted IPv4 address, too.
  - C(struct in_addr) takes IPv4, C(struct in6_addr), C(__be32[4]) and C(__u8[16]) IPv6 or (mapped)
    IPv4, C(__u8[6]) a MAC, C(char) arrays strings, enums names or numbers, C(_Bool) and C(__u8)
    booleans, arrays lists, structs and unions dictionaries of their members.
  - What a program writes itself, such as a counter next to an address, cannot be declared; it would
    change at every run. Keep it in a map of its own.
  - Programs go on reading and writing meanwhile. New entries are written before old ones are
    removed, as long as the map has room for both; there is no moment with neither.
seealso:
  - module: ebpf.fleet.bpf_map_pin
  - module: ebpf.fleet.bpf_prog
extends_documentation_fragment:
  - ebpf.fleet.common
"""

EXAMPLES = r"""
- name: The accelerator serves these ports and nothing else
  ebpf.fleet.bpf_map_entries:
    map: web/policy_ports
    entries:
      - {key: 80/16, value: 1}
      - {key: {prefixlen: 13, port: 8000}, value: 1}   # 8000 to 8007
    purge: true

- name: The service has two back ends
  ebpf.fleet.bpf_map_entries:
    map: lb/services
    entries:
      - key: {address: 192.0.2.10, port: 443}
        value:
          flags: ROUND_ROBIN
          backends:
            - {address: 198.51.100.1, mac: "02:00:00:00:00:01"}
            - {address: 198.51.100.2, mac: "02:00:00:00:00:02"}

- name: An address is blocked in a map that came without BTF
  ebpf.fleet.bpf_map_entries:
    map: /sys/fs/bpf/blocked
    key_format: ipv4
    value_format: u64
    entries:
      - {key: 203.0.113.7, value: 0}

- name: The address is no longer blocked
  ebpf.fleet.bpf_map_entries:
    map: /sys/fs/bpf/blocked
    key_format: ipv4
    entries:
      - key: 203.0.113.7
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: ["add 2, change 1 entries of /sys/fs/bpf/ebpf_fleet/web/policy_ports"]
before:
  description: How many entries the map had. In an array, how many were not zero.
  type: int
  returned: success
after:
  description: How many entries the map has, or in check mode would have.
  type: int
  returned: success
map:
  description: The map, null in check mode when it is not pinned yet.
  type: dict
  returned: success
  contains:
    id:
      description: The kernel's id.
      type: int
    name:
      description: The kernel's name, at most 15 characters.
      type: str
    pin:
      description: Path of the pin.
      type: str
    type:
      description: Map type.
      type: str
    max_entries:
      description: How many entries it takes.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import map_entries


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.BPF_MAP_ENTRIES, supports_check_mode=True)
    front.run(module, map_entries, map_entries.desired)


if __name__ == "__main__":
    main()
