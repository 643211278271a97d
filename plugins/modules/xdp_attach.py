#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach an XDP program to a network interface."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_attach
short_description: Attach an XDP program to a network interface
version_added: 0.1.0
description:
  - Attaches a pinned program to the XDP hook of an interface, by a pinned link (O(link)) or,
    without one, over netlink as C(ip link set ... xdp) does.
  - Another version of the program takes the place of the old one atomically, with the expected old
    one named to the kernel, which by itself would replace any other program without a word.
  - The mode is read back from the interface after each change, because a link does not tell it and
    the kernel says success to the removal from a mode in which nothing is attached.
  - A link whose interface was deleted, and perhaps made anew with the same name, is found and
    replaced.
  - A program that somebody else attached is an error that names it, unless O(force) says to
    displace it.
  - A program that was loaded with C(type=ext) (M(ebpf.fleet.bpf_prog)) is a component. It shares
    the interface with others by a dispatcher, a program that calls one after the other, in the way
    of libxdp (C(xdp-loader), C(xdp-filter)). It joins the dispatcher that is there, or begins one
    on an interface that is free, and leaves it again. The others stay as they are.
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
  prog:
    description:
      - Pin of the program. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Required with O(state=present).
      - With O(state=absent) and no O(link), only this program, or another of its stack, is
        detached. Not set, any program is that this collection loaded.
    type: str
  link:
    description:
      - Pin that holds the link. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Not set, the program is attached over netlink, where it stays until it is detached or the
        interface is deleted.
      - Must not be set for a component, which its dispatcher holds.
    type: str
  mode:
    description:
      - V(native) runs in the driver, V(generic) in the network stack (with any driver, but slower),
        V(offload) on the device, for which the program has to be loaded.
      - V(auto) takes V(native) where the driver does as the interface is set up, else V(generic).
        Once a program is attached, V(auto) accepts the mode it is in.
    type: str
    choices: [auto, native, generic, offload]
    default: auto
  force:
    description:
      - Displace a program that is not ours (not loaded by this collection, or by another stack), or
        with O(state=absent) and no O(link), detach it.
      - Where somebody else's link held it, the link is detached and what pins it remains.
      - With O(state=absent) and no O(link), all components of a dispatcher leave.
    type: bool
    default: false
  priority:
    description:
      - Of a component, from V(0) to V(2147483647). The dispatcher calls the component with the
        lowest one first. Those of equal priority are ordered by name.
      - Not set, it is what the program's object says (C(XDP_RUN_CONFIG) of libxdp's
        C(xdp_helpers.h)), or V(50).
      - Only the object says after which results the next component is called. If it says nothing,
        that is after C(XDP_PASS) alone.
    type: int
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - B(There is a gap), a moment without a program, where the kernel knows no other way; from one
    O(mode) to the other, and from netlink to a link. The task warns of it, also in check mode,
    rehearses the attachment first, and puts the old program back if the new one is refused.
  - From a link to netlink, remove the link first (O(state=absent) with O(link)).
  - The kernel knows a link's interface by its index alone, which other network namespaces have too.
    The module therefore asks the interface itself which program it runs and whether a link holds
    it.
  - A component is added, replaced, moved and removed B(without a gap). A dispatcher is never
    changed; a new one is made with the components that there are to be, and takes at once the place
    of the old one, which is named to the kernel as the expected one.
  - All components of an interface run in the dispatcher's mode. O(mode) must be V(auto) or that
    one.
  - The dispatcher's pins lie below C(/sys/fs/bpf/xdp), where libxdp's tools find them. They go on
    from there, and what they add or remove is no drift.
  - Components need Linux 5.10, BTF and the JIT. Some hardened kernels refuse them even to root.
  - A component that changes packets (C(bpf_xdp_adjust_head) and the like) can be called since
    Linux 6.13, and since some updates of earlier ones, only by a dispatcher that allows for it.
    Those of this module do, those of an older libxdp (1.3) do not. Its tools then neither add nor
    remove single components; they say so and change nothing. C(xdp-loader unload --all) works.
  - A component takes no packets of several buffers (C(xdp.frags)). An MTU that needs them is
    refused by the driver.
  - In check mode the program is attached to C(lo) of a network namespace made for it. Whether the
    driver has native mode is known in advance since Linux 6.3.
  - An error of a driver (such as an MTU that is too large for native mode) is shown in the driver's
    own words.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.tc_attach
"""

EXAMPLES = r"""
- name: The load balancer runs on eth0
  ebpf.fleet.xdp_attach:
    interface: eth0
    prog: lb/balancer
    link: lb/eth0_link

- name: The same in a network namespace, in native mode or not at all
  ebpf.fleet.xdp_attach:
    interface: eth0
    netns: edge
    prog: lb/balancer
    link: lb/edge_eth0_link
    mode: native

- name: Without a link, in place of a program that somebody else left there
  ebpf.fleet.xdp_attach:
    interface: eth0
    prog: lb/balancer
    force: true

- name: A load balancer for an interface that others use too
  ebpf.fleet.bpf_prog:
    object: balancer.bpf.o
    pin: lb/balancer
    type: ext

- name: It runs beside xdp-filter, and after it
  ebpf.fleet.xdp_attach:
    interface: eth0
    prog: lb/balancer
    priority: 60

- name: The load balancer is gone from eth0
  ebpf.fleet.xdp_attach:
    interface: eth0
    link: lb/eth0_link
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
    mode: native
    driver_native: true
    prog_id: 42
    prog_name: balancer
    prog_tag: a0b1c2d3e4f50617
    link_id: 7
    link: /sys/fs/bpf/ebpf_fleet/lb/eth0_link
    dispatcher: null
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
    mode:
      description: The mode as read back from the interface; null when the program is not attached.
      type: str
    driver_native:
      description:
        - Whether the driver says that it takes native mode; null when it does not say (before Linux
          6.3).
      type: bool
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
      description:
        - Id of the link that attaches it; null when it is attached over netlink or not at all.
      type: int
    link:
      description: Pin of that link.
      type: str
    dispatcher:
      description:
        - The dispatcher of the interface; null when there is none. C(prog_id), C(version) of the
          protocol, and C(components), in the order in which they are called, each with C(prog_id),
          C(prog_name), C(priority), C(chain) (the actions after which the next one is called) and
          C(ours) (whether it was loaded by this collection).
      type: dict
    others:
      description:
        - Other programs at the XDP hook of the interface, each with C(prog_id), C(prog_name),
          C(mode), C(link_id) (null when it is attached over netlink) and C(ours) (whether it was
          loaded by this collection).
      type: list
      elements: dict
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["attach program eth0 xdp"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import xdp


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.XDP_ATTACH, supports_check_mode=True)
    front.run(module, xdp, xdp.desired)


if __name__ == "__main__":
    main()
