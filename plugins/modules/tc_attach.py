#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a BPF program to the traffic control of a network interface."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tc_attach
short_description: Attach a BPF program to the traffic control of a network interface
version_added: 0.1.0
description:
  - Attaches a pinned program to what an interface receives or sends, by a pinned TCX link
    (O(link)), or as a filter in a clsact qdisc, in direct-action mode.
  - Another version of the program takes the place of the old one atomically.
  - A TCX link has a place of its own. What others attached there runs too and is listed in the
    result.
  - A filter is known by its direction, priority and handle, so a second run adds no second filter.
    One that somebody else put there is an error that names it, unless O(force) says to displace it.
  - A clsact qdisc is added where it is missing. It is removed with the last filter in it, if this
    module added it and nothing else uses it in either direction.
options:
  interface:
    description:
      - Name of the network interface.
    type: str
    required: true
  netns:
    description:
      - Network namespace of the interface, by its name in C(ip netns) or by an absolute path such
        as C(/proc/PID/ns/net).
      - Not set, it is the one in which the module runs.
    type: str
  direction:
    description:
      - V(ingress) is what the interface receives, V(egress) what it sends.
    type: str
    choices: [ingress, egress]
    required: true
  prog:
    description:
      - Pin of the program. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Required with O(state=present).
      - With O(state=absent) and no O(link), only this program, or another of its stack, is
        detached. Not set, any program is that this collection loaded.
    type: str
  link:
    description:
      - Pin that holds the TCX link. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Needs Linux 6.6. Not set, the program is attached as a clsact filter.
    type: str
  priority:
    description:
      - The filter's priority, which C(tc) calls C(pref), from 1 to 65535. Lower ones run first.
      - With O(link) it names the filter that the link takes over from.
    type: int
    default: 50
  handle:
    description:
      - The filter's handle, from 1 to 0x7fffffff. Of one priority, the filter added last runs
        first.
    type: int
    default: 1
  force:
    description:
      - Displace a filter that is not ours (not loaded by this collection, or by another stack) and
        has the same priority and handle, or with O(state=absent) and no O(link), delete it.
    type: bool
    default: false
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - A TCX link takes another program only from the expected old one, named to the kernel. For a
    filter the kernel takes no expected program; the module looks just before, and the lock between
    two runs of this collection protects it from them.
  - The replacement of a filter's program is atomic too. Each packet meets the old or the new one.
  - From a filter to a link there is no gap. For a moment both are attached, and the task says so.
    TCX runs first, and a program there that returns anything but C(TCX_NEXT) (-1, C(TC_ACT_UNSPEC))
    ends the matter, clsact filters included.
  - From a link to a filter, remove the link first (O(state=absent) with O(link)).
  - The priorities that the kernel gives to filters declared without one begin at 49152 and go down.
  - A qdisc that this module added is marked by an empty chain with the number 247406311
    (0xebf1ee7), as C(tc chain show) lists it.
  - In check mode the program is attached to C(lo) of a network namespace made for it.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.xdp_attach
"""

EXAMPLES = r"""
- name: What eth0 sends is counted
  ebpf.fleet.tc_attach:
    interface: eth0
    direction: egress
    prog: meter/count
    link: meter/eth0_egress_link

- name: On a kernel before 6.6, as a clsact filter
  ebpf.fleet.tc_attach:
    interface: eth0
    direction: egress
    prog: meter/count
    priority: 10

- name: The filter is gone, and the qdisc if nothing else uses it
  ebpf.fleet.tc_attach:
    interface: eth0
    direction: egress
    prog: meter/count
    priority: 10
    state: absent
"""

RETURN = r"""
attachment:
  description: The attachment as the kernel has it; in check mode, as it is before.
  returned: success
  type: dict
  sample:
    interface: eth0
    ifindex: 2
    netns: null
    direction: egress
    mode: tcx
    priority: null
    handle: null
    prog_id: 42
    prog_name: count
    prog_tag: a0b1c2d3e4f50617
    link_id: 7
    link: /sys/fs/bpf/ebpf_fleet/meter/eth0_egress_link
    others: []
  contains:
    interface:
      description: Name of the interface.
      type: str
    ifindex:
      description: Its index; null when there is no such interface.
      type: int
    netns:
      description: The network namespace as declared.
      type: str
    direction:
      description: The direction as declared.
      type: str
    mode:
      description: How the program is attached, C(tcx) or C(clsact); null when it is not.
      type: str
    priority:
      description: Priority of the filter; null for a link.
      type: int
    handle:
      description: Handle of the filter; null for a link.
      type: int
    prog_id:
      description: Id of the attached program; null when it is not attached.
      type: int
    prog_name:
      description: Its name, of which the kernel keeps 15 characters.
      type: str
    prog_tag:
      description: Its tag, in hexadecimal.
      type: str
    link_id:
      description: Id of the link that attaches it; null for a filter.
      type: int
    link:
      description: Pin of that link.
      type: str
    others:
      description:
        - What else handles packets of this direction, in order, each with C(prog_id) and
          C(prog_name) (null when it is no eBPF program) and C(ours) (whether it was loaded by this
          collection); at the TCX hook with C(link_id) (null when it is attached without a link), in
          the qdisc with C(priority) and C(handle).
      type: list
      elements: dict
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["attach program eth0 egress"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import tc


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.TC_ATTACH, supports_check_mode=True)
    front.run(module, tc, tc.desired)


if __name__ == "__main__":
    main()
