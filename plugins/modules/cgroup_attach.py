#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a BPF program to a control group."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cgroup_attach
short_description: Attach a BPF program to a control group
version_added: 0.1.0
description:
  - Attaches a pinned program to a cgroup2 control group, so that it runs for the sockets of the
    processes in it and below.
  - The attachment is a link, pinned in the BPF file system, unless O(mode) says otherwise.
  - Another version of the program takes the place of the old one atomically, with the expected old
    one named to the kernel.
  - A link whose control group was removed and made anew is found (it names the group by id) and
    replaced.
  - What others attached to the same hook is left alone and listed in the result.
options:
  cgroup:
    description:
      - The control group's directory.
      - A path without a leading slash lies below the place where cgroup2 is mounted, wherever that
        is (C(/sys/fs/cgroup) or, on hybrid systems, C(/sys/fs/cgroup/unified)).
      - So does one with a leading slash that does not exist by itself, as C(systemctl show) prints
        it (C(/system.slice/nginx.service)).
    type: str
    required: true
  create_cgroup:
    description:
      - Create O(cgroup) when it is missing, with those above it. What joins it later finds the
        program there. A control group that was created is never removed.
    type: bool
    default: false
  allow_root:
    description:
      - Allow O(cgroup) to be the root of the hierarchy, where the program runs for every process of
        the host.
    type: bool
    default: false
  prog:
    description:
      - Pin of the program. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Required, except to remove a link.
    type: str
  attach_type:
    description:
      - The hook, as C(bpftool) names it, in its long form (V(cgroup_sock_ops)) or its short form
        (V(sock_ops)).
      - May be left out when the program fits one hook only, as C(sock_ops) programs do.
    type: str
  link:
    description:
      - Pin that holds the link. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Required with O(mode=link). With O(mode=multi) it names the link that the direct attachment
        takes over from.
    type: str
  mode:
    description:
      - V(link) attaches by a link. Needs Linux 5.7.
      - V(multi) attaches directly, beside links and other programs (BPF_F_ALLOW_MULTI).
      - V(override) attaches directly, and control groups below may have another program instead
        (BPF_F_ALLOW_OVERRIDE).
      - V(exclusive) attaches directly and without a flag. From then on B(nothing can be attached)
        to the same hook of any control group below.
      - A direct attachment has no pin. It lasts until it is detached or the control group is
        removed.
    type: str
    choices: [link, multi, override, exclusive]
    default: link
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - Going from V(multi) to V(link) or back has no gap. For a moment both attachments run, and the
    run says so. Every other change of O(mode) would have a gap and is refused; detach first.
  - With V(override) and V(exclusive) the kernel takes no expected program, and a new version
    replaces the old one without that safeguard. Only the lock between two runs of this collection
    protects it.
  - A direct attachment of an earlier version is recognised by its provenance, that is by being
    loaded by M(ebpf.fleet.bpf_prog) with the same program name and stack, and no longer being
    pinned.
  - In check mode the kernel is asked whether the program fits the hook, without a control group
    being involved.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.sockmap_attach
"""

EXAMPLES = r"""
- name: The socket watcher runs for the web servers
  ebpf.fleet.cgroup_attach:
    cgroup: system.slice/nginx.service
    prog: web/sockops
    link: web/sockops_link

- name: Outgoing packets of a container are filtered
  ebpf.fleet.cgroup_attach:
    cgroup: /sys/fs/cgroup/machine.slice/shop.scope
    prog: shop/egress_filter
    attach_type: egress
    link: shop/egress_link

- name: On a kernel before 5.7, without a link
  ebpf.fleet.cgroup_attach:
    cgroup: system.slice/nginx.service
    prog: web/sockops
    mode: multi

- name: The socket watcher is gone
  ebpf.fleet.cgroup_attach:
    cgroup: system.slice/nginx.service
    link: web/sockops_link
    state: absent
"""

RETURN = r"""
attachment:
  description: The attachment as the kernel has it; in check mode, as it is before.
  returned: success
  type: dict
  sample:
    cgroup: /sys/fs/cgroup/system.slice/nginx.service
    cgroup_id: 4711
    attach_type: cgroup_sock_ops
    mode: link
    prog_id: 42
    prog_name: sockops
    prog_tag: a0b1c2d3e4f50617
    link_id: 7
    link: /sys/fs/bpf/ebpf_fleet/web/sockops_link
    shared_with: []
  contains:
    cgroup:
      description: Absolute path of the control group.
      type: str
    cgroup_id:
      description: The control group's id, the inode of its directory; null when there is none.
      type: int
    attach_type:
      description: The hook; null when it is not known because the program is not pinned.
      type: str
    mode:
      description: How the program is attached; null when it is not.
      type: str
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
      description: Id of the link that attaches it; null when it is attached directly or not at all.
      type: int
    link:
      description: Pin of that link.
      type: str
    shared_with:
      description:
        - Other programs at the same hook, in the order in which they run, each with C(prog_id),
          C(prog_name), C(link_id) (null when it is attached directly) and C(ours) (whether it was
          loaded by this collection).
      type: list
      elements: dict
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["attach program /sys/fs/cgroup/system.slice/nginx.service cgroup_sock_ops"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import cgroup


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.CGROUP_ATTACH, supports_check_mode=True)
    front.run(module, cgroup, cgroup.desired)


if __name__ == "__main__":
    main()
