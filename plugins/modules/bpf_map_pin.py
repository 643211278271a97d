#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create and pin BPF maps."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_map_pin
short_description: Create and pin BPF maps
version_added: 0.1.0
description:
  - Makes a BPF map and pins it, or pins one that exists. A pin is a name in a BPF file system that
    keeps the map, and what it holds, alive.
  - A map that is pinned already is compared with what was declared, never made anew. Another shape
    is an error that says how to proceed.
  - A map that holds entries is let go only when something else is seen to keep it alive (a
    program, a sockmap link, a map of maps, another pin, a process), or with O(discard_data=true).
    Pins in other mount namespaces cannot be seen.
options:
  pin:
    description:
      - Where the map is pinned. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    required: true
  type:
    description:
      - Makes a map of this type, as C(bpftool) names it (V(hash), V(array), V(lpm_trie) and so on).
      - A type that needs BTF, an inner map or a program (such as V(sk_storage) or
        V(hash_of_maps)) is made by M(ebpf.fleet.bpf_prog) from the object that declares it.
    type: str
  key_size:
    description:
      - Bytes of a key. V(4) in arrays; not for queues, stacks, bloom filters and ring buffers.
    type: int
  value_size:
    description: Bytes of a value. Not for ring buffers.
    type: int
  max_entries:
    description: How many entries the map takes; of a ring buffer, its size in bytes.
    type: int
  flags:
    description:
      - Flags by name (V(no_prealloc), which V(lpm_trie) needs, V(no_common_lru), V(mmapable),
        V(rdonly_prog), V(wronly_prog), V(zero_seed), V(stack_build_id), V(clone),
        V(preserve_elems), V(inner_map)) or as number.
    type: list
    elements: str
  name:
    description:
      - Name of the map in the kernel, which keeps 15 characters. By default a new map is named
        after its pin.
    type: str
  map_id:
    description:
      - Pins the map with this id. Ids change with every load; prefer O(prog) with O(map).
    type: int
  prog:
    description: Pins a map that the program pinned here uses. Relative as in O(pin).
    type: path
  map:
    description:
      - Name of the map in O(prog). Only the first 15 characters tell maps apart.
    type: str
  mode:
    description:
      - Permission bits of the pin, in octal and quoted, such as V('0640'). By default a new pin has
        V('0600'), and an existing one keeps what it has.
    type: raw
  discard_data:
    description:
      - Let a map go although it holds entries and nothing else is seen to keep it alive.
    type: bool
    default: false
  force:
    description:
      - Replace another map at a pin outside a directory named C(ebpf_fleet), when O(map_id) or
        O(prog) names the map that belongs there.
    type: bool
    default: false
notes:
  - A pin changes hands in one rename; there is no moment without a map.
  - In check mode a map that would be created is created and closed again, so that the kernel
    judges its shape.
  - The kernel floor of a map type is the kernel's own, such as Linux 5.8 for V(ringbuf).
seealso:
  - module: ebpf.fleet.bpf_map_entries
  - module: ebpf.fleet.bpf_prog
extends_documentation_fragment:
  - ebpf.fleet.common
"""

EXAMPLES = r"""
- name: There is a map of services that survives every program
  ebpf.fleet.bpf_map_pin:
    pin: web/services
    type: hash
    key_size: 4
    value_size: 8
    max_entries: 1024

- name: The map that a loaded program uses has a name
  ebpf.fleet.bpf_map_pin:
    pin: /sys/fs/bpf/sock_ops_map
    prog: /sys/fs/bpf/bpf_sockops
    map: sock_ops_map

- name: The map with this id has a name that a group may open
  ebpf.fleet.bpf_map_pin:
    pin: /sys/fs/bpf/seen
    map_id: 42
    mode: '0640'

- name: The map and what it holds are gone
  ebpf.fleet.bpf_map_pin:
    pin: web/services
    state: absent
    discard_data: true
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: ["create map /sys/fs/bpf/ebpf_fleet/web/services"]
map:
  description:
    - The map at the pin, null when there is none. In check mode, the one that is there now.
  type: dict
  returned: success
  contains:
    pin:
      description: Path of the pin.
      type: str
    id:
      description: The kernel's id.
      type: int
    name:
      description: The kernel's name, at most 15 characters.
      type: str
    type:
      description: Map type.
      type: str
    key_size:
      description: Bytes of a key.
      type: int
    value_size:
      description: Bytes of a value.
      type: int
    max_entries:
      description: How many entries it takes.
      type: int
    flags:
      description: BPF_F_* bits.
      type: int
    mode:
      description: Permission bits of the pin, in octal.
      type: str
      sample: "0600"
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import map_pin


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.BPF_MAP_PIN, supports_check_mode=True)
    front.run(module, map_pin, map_pin.desired)


if __name__ == "__main__":
    main()
