#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attach a BPF program to a socket map."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_attach
short_description: Attach a BPF program to a socket map
version_added: 0.1.0
description:
  - Attaches a pinned C(sk_msg) or C(sk_skb) program to a SOCKMAP or SOCKHASH, so that it runs for
    the sockets in that map.
  - The attachment is a link when O(link) is given (Linux 6.10 and later), else a direct one.
  - A socket map has one program for each hook. A foreign one there is an error, never replaced.
  - Removal drains the map first, as O(drain) says.
options:
  map:
    description:
      - Pin of the map. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: str
    required: true
  prog:
    description:
      - Pin of the program. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Required, except to remove a link.
    type: str
  attach_type:
    description:
      - The hook, as C(bpftool) names it, in its long form (V(sk_skb_stream_verdict)) or its short
        form (V(stream_verdict)).
    type: str
    default: sk_msg_verdict
  link:
    description:
      - Pin that holds the link. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - Without it the program is attached directly. That has no pin, and lasts until it is detached
        or the map is gone.
    type: str
  link_fallback:
    description:
      - Attach directly, as without O(link), on a host whose kernel has no links for socket maps
        (Linux before 6.10). Otherwise that is an error.
      - Takes effect with O(prog), also for a removal.
    type: bool
    default: false
  drain:
    description:
      - What O(state=absent) does about sockets that are in the map.
      - V(wait) waits until they have closed. When some are left after O(drain_timeout), it fails,
        and nothing has been detached.
      - V(none) detaches at once. The sockets keep the program until they close.
      - V(force) takes the sockets out of the map, then detaches. B(Data that is queued for them is
        lost), with no error on either side of the connection.
    type: str
    choices: [wait, force, none]
    default: wait
  drain_timeout:
    description:
      - Seconds that O(drain=wait) waits. Other runs on the host wait for it (O(lock_timeout)).
    type: int
    default: 60
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - Attach here before sockets are put into the map, that is before M(ebpf.fleet.cgroup_attach)
    attaches the C(sock_ops) program; the kernel gives a socket its program when it enters the map.
    For the same reason another version of the program serves new sockets only, while those in the
    map keep the version they have. There is no gap.
  - Remove in the opposite order. While a C(sock_ops) program that uses the map is still attached to
    a control group, the map may never become empty; when there are sockets in it, the run warns and
    names that program.
  - A direct attachment of an earlier version of the program becomes a link without a gap. The way
    back has a gap and is refused; remove the link first.
  - For a direct attachment the kernel takes no expected program when another version replaces the
    first. Only the lock between two runs of this collection protects it.
  - Linux before 5.18 does not tell which program a map has. There the pin
    C(<map>__<attach_type>__<map id>) records what was attached, a change by other tools is not
    noticed, and a foreign program that uses the map and might be attached is an error.
  - The sockets in a SOCKMAP with values of 4 bytes cannot be seen by anybody. Declare values of 8
    bytes where they are to be waited for.
  - In check mode the program is attached to a map of no sockets, which is dropped.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.cgroup_attach
"""

EXAMPLES = r"""
- name: The redirector is attached to the map
  ebpf.fleet.sockmap_attach:
    map: web/sockets
    prog: web/redirect

- name: The same by a link, on Linux 6.10 and later
  ebpf.fleet.sockmap_attach:
    map: web/sockets
    prog: web/redirect
    link: web/redirect_link

- name: The redirector is gone, once all connections have ended
  ebpf.fleet.sockmap_attach:
    map: web/sockets
    prog: web/redirect
    state: absent
    drain: wait
    drain_timeout: 300
"""

RETURN = r"""
attachment:
  description: The attachment as the kernel has it; in check mode, as it is before.
  returned: success
  type: dict
  sample:
    map: /sys/fs/bpf/ebpf_fleet/web/sockets
    map_id: 11
    attach_type: sk_msg_verdict
    prog_id: 42
    prog_name: redirect
    prog_tag: a0b1c2d3e4f50617
    link_id: null
    link: null
    other_prog_id: null
  contains:
    map:
      description: Pin of the map.
      type: str
    map_id:
      description: Id of the map; null when there is none.
      type: int
    attach_type:
      description: The hook.
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
    other_prog_id:
      description:
        - Id of the program that is attached instead, an earlier version or a foreign one; null when
          there is none.
      type: int
lingering:
  description: Sockets that are in the map; null when the kernel does not show them.
  returned: when O(state=absent); also when draining fails
  type: int
  sample: 0
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["attach program /sys/fs/bpf/ebpf_fleet/web/sockets sk_msg_verdict"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import sockmap


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.SOCKMAP_ATTACH, supports_check_mode=True)
    front.run(module, sockmap, sockmap.desired)


if __name__ == "__main__":
    main()
