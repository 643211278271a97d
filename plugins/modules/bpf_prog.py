#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load and pin BPF programs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_prog
short_description: Load and pin BPF programs
version_added: 0.1.0
description:
  - Loads programs of a BPF object (or of a source, compiled first) and pins them, with the
    maps that they share.
  - A program is unchanged when the kernel holds it with the provenance that this module binds to
    each program it loads
    (the object's sha256, a digest of constants, map bindings and type, and the labels), and when
    its maps are those
    behind the declared pins. Neither the existence of a pin nor the program's tag is taken for an
    answer.
  - A changed program is loaded and verified first and then takes the pin by an atomic rename. What
    is attached keeps the old
    program until the attachment is converged (M(ebpf.fleet.cgroup_attach), M(ebpf.fleet.xdp_attach)
    and the like).
  - The programs of one task are loaded together when one of them has changed, since they share the
    object's global variables. Those then begin with their initial values; what is to last belongs
    into a map.
  - In check mode the programs are loaded, which runs the target's own verifier, and closed again.
    Nothing is pinned.
  - C(LIBBPF_PIN_BY_NAME) in an object is ignored; O(pin_maps) and O(maps) say what is pinned.
options:
  object:
    description: The BPF object (an ELF file), on the controller unless O(remote_src=true).
    type: path
  source:
    description:
      - A source in C to load instead of an object, on the controller unless O(remote_src=true).
    type: path
  compiler:
    description:
      - What compiles O(source).
      - V(clang) runs where the source is, so that with O(remote_src=false) targets need no
        compiler. The same source
        makes the same bytes.
      - V(bcc) takes BCC dialect and always runs on the target, with the BCC of its distribution
        (Debian,
        C(python3-bpfcc)) and the headers of its kernel. The source has to be one file then.
    type: str
    choices: [clang, bcc]
    default: clang
  remote_src:
    description:
      - Whether O(object) or O(source) is on the target already. If not, it is searched for on the
        controller like the
        files of M(ansible.builtin.copy), sent with the task, and nothing of it stays on the target.
    type: bool
    default: false
  cflags:
    description: Further flags for the compiler.
    type: list
    elements: str
  sha256:
    description:
      - What the file must have, in hexadecimal. Another content is an error, and nothing is
        loaded.
    type: str
  pin:
    description:
      - Where O(program) is pinned. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
  program:
    description:
      - The program's name (its C function). May be left out when the object has one program.
    type: str
  pin_dir:
    description: Directory in which each of O(programs) is pinned by its name.
    type: path
  programs:
    description:
      - Names of the programs to load. All of the object by default.
      - With O(state=absent) all that this collection loaded and that are pinned in O(pin_dir) go by
        default.
    type: list
    elements: str
  type:
    description:
      - Program type as C(bpftool) names it, for a section name that says none (C(SEC("sock_ops"))
        needs V(sock_ops)).
      - V(ext) makes an XDP program a component, which shares an interface with others
        (M(ebpf.fleet.xdp_attach)). It needs BTF and the exact signature C(int NAME(struct xdp_md
        *ctx)), and cannot be attached in any other way.
    type: str
  attach_type:
    description:
      - Expected attach type as C(bpftool) names it, where the section name does not say it.
    type: str
  maps:
    description:
      - Map name to pin. A map that is pinned there is re-used, with all it holds; else the new map
        is pinned there.
      - A map that has lost its pin and that the program at the declared pin still uses is pinned
        there again, with all it holds.
    type: dict
  pin_maps:
    description:
      - Directory in which all other maps of the object are re-used or pinned by their names. Maps
        of global variables, and the tables of C(struct_ops), belong to their program and are not
        pinned.
    type: path
  map_max_entries:
    description:
      - Map name to number of entries, in place of what the object says. The size of a ring buffer,
        in bytes, is rounded up to what the kernel takes.
    type: dict
  constants:
    description:
      - Global C(const volatile) variable to value. Numbers, booleans, strings for arrays of
        C(char), lists and
        dictionaries, checked against the type in the object's BTF.
    type: dict
  on_incompatible_map:
    description:
      - What to do when the map behind a pin has another shape than the object's.
      - V(recreate) replaces it by an empty map; its entries are lost.
    type: str
    choices: [fail, recreate]
    default: fail
  discard_maps:
    description:
      - With O(state=absent), unpin the maps of O(maps) and those in O(pin_maps) too, with what they
        hold.
      - In O(pin_maps) outside C(ebpf_fleet) only those go that the programs to unpin were loaded
        with; name others in O(maps).
    type: bool
    default: false
  force:
    description: Replace, or with O(state=absent) unpin, a program of somebody else at the pin.
    type: bool
    default: false
  stack:
    description:
      - Name of the stack that the program belongs to, kept with it in the kernel. Another one loads
        the program anew.
    type: str
  release:
    description:
      - Release of the stack, kept with the program in the kernel. A new one loads the program
        anew.
    type: str
  labels:
    description:
      - Anything else to keep with the program in the kernel, shown by C(bpftool prog show). Keys
        are C identifiers of at most 100 characters, values are text, numbers or booleans. Other
        labels load the program anew.
    type: dict
notes:
  - Inside a directory named C(ebpf_fleet) whatever program sits at a declared pin is drift and is
    replaced. Elsewhere a
    program that this collection did not load is foreign and an error, unless O(force=true).
  - Needs libbpf 0.6 or later on the target, and Linux 5.10 or later for the provenance.
attributes:
  async:
    description: A load takes milliseconds, and what was sent is gone when the task ends.
    support: none
  vault:
    description: O(object) and O(source) on the controller may be vaulted.
    support: full
extends_documentation_fragment:
  - ebpf.fleet.common
"""

EXAMPLES = r"""
- name: The redirector is loaded and its maps are pinned
  ebpf.fleet.bpf_prog:
    object: sockmap.bpf.o
    pin_dir: web
    pin_maps: web/maps
    stack: web

- name: A program whose section name says no type uses a map that another object made
  ebpf.fleet.bpf_prog:
    object: /usr/local/lib/bpf/sockops.o
    remote_src: true
    program: bpf_sockmap
    type: sock_ops
    pin: /sys/fs/bpf/bpf_sockops
    maps:
      sock_ops_map: /sys/fs/bpf/sock_ops_map

- name: A constant is set, and the kernel has verified the result
  ebpf.fleet.bpf_prog:
    source: limit.bpf.c
    compiler: clang
    pin: limit/ingress
    program: ingress
    constants:
      packets_per_second: 10000
  check_mode: true
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: ["load program /sys/fs/bpf/ebpf_fleet/web/redirect"]
programs:
  description: The programs at the declared pins. In check mode, those that are there now.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name in the object.
      type: str
    id:
      description: The kernel's id.
      type: int
    type:
      description: Program type.
      type: str
    tag:
      description: The kernel's hash of the instructions.
      type: str
    pin:
      description: Path of the pin.
      type: str
    sha256:
      description: Digest of the object the program was loaded from; empty for a foreign one.
      type: str
    map_ids:
      description: Ids of the maps it uses.
      type: list
      elements: int
    verified_instructions:
      description: How many instructions the verifier walked through; 0 before Linux 5.16.
      type: int
maps:
  description: The maps at the declared pins.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Name in the object.
      type: str
    id:
      description: The kernel's id.
      type: int
    pin:
      description: Path of the pin.
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
log:
  description: All that libbpf and the verifier said, when they refused.
  type: list
  elements: str
  returned: when a load failed
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import prog


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.BPF_PROG, supports_check_mode=True)
    front.run(module, prog, prog.desired)


if __name__ == "__main__":
    main()
