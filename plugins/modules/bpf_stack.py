#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge a stack of BPF resources as one release."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_stack
short_description: Converge a stack of BPF resources as one release, all of it or nothing
version_added: 0.1.0
description:
  - A stack is a named list of resources (programs, maps, entries, attachments) that stand or fall
    together. A release is one version of it, stored on the host.
  - All resources are planned first, later ones on top of what earlier ones will have made, so that
    check mode and the diff tell of the whole. The programs are verified by the host's own kernel
    in doing so. What fails here has changed nothing.
  - Then they are applied as one transaction. A failure at any step undoes the steps before it, and
    what ran before goes on to serve all the time.
  - The order comes from the resources, not from the list. A program is there before its attachment,
    a verdict program before the sockets come, and entries are there before the first packet.
  - A new version takes over by updating the link, without a gap. Maps with data are kept.
  - Objects are named by their digest and sent to hosts that lack them. A host that is as declared
    costs one round trip, and no object moves.
  - The host keeps the release in C(/var/lib/ebpf-fleet/), with all it takes to run it. It replays
    it when it boots (O(boot)), without a controller, and M(ebpf.fleet.bpf_release) goes back to it
    by name.
options:
  name:
    description:
      - Name of the stack. Letters, digits, C(_) and C(-), at most 64 of them.
      - The pins of a stack belong into the directory of its name, such as C(web/redirect) for the
        stack V(web). What is ours there and no longer declared is removed (O(prune)).
    type: str
    required: true
  state:
    description:
      - Whether the stack is to exist.
      - V(absent) takes away all of it, first what O(drain) says, then everything else in the
        reverse order, then the stored releases.
    type: str
    choices: [present, absent]
    default: present
  release:
    description:
      - Name of the release. A release is never changed, so another content needs another name.
      - A program whose content is the same stays loaded when the release changes; its mark
        C(release) tells which release loaded it.
      - Without one, the name is V(auto-) and the first digits of the digest of the content.
    type: str
  resources:
    description:
      - What the stack consists of. Each is a dictionary with one key, the name of a module, and
        that module's options below it. All options are those of the module.
      - Known are C(bpffs), M(ebpf.fleet.bpf_prog), M(ebpf.fleet.bpf_map_pin),
        M(ebpf.fleet.bpf_map_entries), M(ebpf.fleet.bpf_test_run), M(ebpf.fleet.cgroup_attach),
        M(ebpf.fleet.sockmap_attach), M(ebpf.fleet.tc_attach), M(ebpf.fleet.xdp_attach),
        M(ebpf.fleet.xdp_lb_services), M(ebpf.fleet.xdp_lb_backend) and C(config_file).
      - C(config_file) is a file that belongs to the release. Its options are C(path), C(content)
        and C(mode), which is V(0644) by default.
      - C(bpf_test_run) is a gate. It runs the program before anything is attached, whenever
        something changes, and another verdict than the expected one undoes everything. Check mode
        does not run it, as the maps that it reads are not filled then.
      - Options that the stack itself says (C(lock_timeout), and C(stack) and C(release) of
        M(ebpf.fleet.bpf_prog)) are left out. So is C(state), as what is no longer declared is
        removed.
      - Paths on the host are taken as they are written, without C(~) and variables of a shell.
      - With O(state=absent), options to remove a resource with, in place of the stored ones, such
        as C(drain) of M(ebpf.fleet.sockmap_attach); and resources to remove that no release has.
    type: list
    elements: dict
    default: []
  drain:
    description:
      - Resources that are converged before the stack is taken away, so that what is in flight can
        finish. Each is a C(bpf_map_entries), for example of a map that tells the data plane to take
        no new connections. They are stored with the release.
      - With them, a program is taken from its sockmap first of all, when the map is empty, while
        the programs that take sockets in and out are still attached.
    type: list
    elements: dict
    default: []
  prune:
    description:
      - Whether what an earlier release had, and what else of ours belongs to the stack, is removed
        when it is not declared.
    type: bool
    default: true
  boot:
    description:
      - When the host replays the release after a reboot.
      - V(early) is before the network is set up, V(network) when it is online, for attachments to
        interfaces that come late.
      - With V(never) the stack is gone after a reboot, until the next run.
    type: str
    choices: [early, network, never]
    default: early
  confirm:
    description:
      - What confirms a change of programs or attachments (O(confirm_timeout)).
      - V(now) makes this task open a new connection to the host and confirm over it.
      - V(later) leaves that to M(ebpf.fleet.bpf_release) with C(state=confirmed), for example after
        the proofs of a roll-out. Then every change waits for it, also one of entries alone.
    type: str
    choices: [now, later]
    default: now
  confirm_timeout:
    description:
      - Seconds after which the host goes back to what it ran before, by itself, unless the release
        was confirmed over a new connection. A program that cuts the host off is gone then.
      - V(0) confirms nothing and waits for nothing.
    type: int
    default: 60
  keep:
    description:
      - How many releases the host keeps. The one that runs and the one before it are always kept.
    type: int
    default: 5
attributes:
  check_mode:
    description: Plans the whole, and lets the host's kernel verify every program. It leaves nothing
      behind, the engine included.
  action:
    description: Finds, decrypts and compiles on the controller, and sends what the host lacks.
    support: full
  async:
    description: The task talks with the host more than once.
    support: none
  vault:
    description: Objects and sources on the controller may be vaulted.
    support: full
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - How a connection is made anew depends on its plugin. P(ansible.builtin.ssh#connection) ends its
    shared master (C(ControlPersist)); connections that share nothing, like
    P(ansible.builtin.local#connection), are new for each task anyway.
  - A new connection that cannot be made is tried again until O(confirm_timeout) has passed. The
    task fails then, and says when the host goes back.
  - Objects are searched for like the files of M(ansible.builtin.copy), in C(files/) of the role
    first. C(remote_src) names one on the host; it becomes part of the release, too.
  - The host needs no compiler, unless a program is in BCC dialect (C(compiler=bcc)).
seealso:
  - module: ebpf.fleet.bpf_release
  - module: ebpf.fleet.bpf_info
"""

EXAMPLES = r"""
- name: The packet filter is release 2026-11-21.1
  ebpf.fleet.bpf_stack:
    name: filter
    release: 2026-11-21.1
    resources:
      - bpf_prog:
          object: filter.bpf.o
          pin: filter/ingress
          pin_maps: filter/maps
      - bpf_map_entries:
          map: filter/maps/blocked
          entries:
            - {key: 192.0.2.1, value: 1}
      - bpf_test_run:
          prog: filter/ingress
          packets:
            - name: a blocked sender
              pcap: /usr/share/filter/blocked.pcap
              expect: {verdict: drop}
      - xdp_attach:
          interface: eth0
          prog: filter/ingress
          link: filter/eth0

- name: What a change of the filter would do is known
  ebpf.fleet.bpf_stack:
    name: filter
    resources: "{{ filter_resources }}"
  check_mode: true
  diff: true

- name: Nothing is left of the filter
  ebpf.fleet.bpf_stack:
    name: filter
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: ["load program /sys/fs/bpf/ebpf_fleet/filter/ingress", "attach XDP program to eth0"]
plan:
  description: The same, resource by resource, in the order of the steps.
  type: list
  elements: dict
  returned: success
  contains:
    resource:
      description: The resource, by the name of its module; C(prune) for what is no longer declared.
      type: str
    target:
      description: A pin, a hook or a file.
      type: str
    actions:
      description: What is done to it.
      type: list
      elements: str
resources:
  description:
    - What the module of each resource returns, in the order in which they are declared.
    - Of C(xdp_lb_services) the names of the services and C(slots_moved) alone.
  type: list
  elements: dict
  returned: success
release:
  description: The release that runs now; none when the stack is gone.
  type: str
  returned: success
  sample: 2026-11-21.1
previous:
  description: The release that ran before; none when there was none.
  type: str
  returned: success
  sample: auto-3c1f0a9be2d4
releases:
  description: The stored releases, the oldest first.
  type: list
  elements: str
  returned: success
confirm_by:
  description:
    - When the host goes back unless the release is confirmed, in seconds since 1970 by its own
      clock.
  type: int
  returned: when the release waits to be confirmed
undone:
  description: The steps that were undone.
  type: list
  elements: str
  returned: when a step failed
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import options


def main() -> None:
    """Say what runs this: the action plugin of the same name."""
    module = AnsibleModule(**options.BPF_STACK, supports_check_mode=True)
    module.fail_json(
        msg="bpf_stack works through its action plugin alone; run it as a task, "
        "ebpf.fleet.bpf_stack"
    )


if __name__ == "__main__":
    main()
