#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a pinned program on packets."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_test_run
short_description: Run a pinned program on packets, and compare what comes of them
version_added: 0.1.0
description:
  - Gives packets to a program that is attached to nothing, or to something; no packet comes from an
    interface or leaves through one. Fails when a verdict or a packet is not as expected.
  - Meant as the gate before an attachment. Load the program with M(ebpf.fleet.bpf_prog), try it,
    and let M(ebpf.fleet.xdp_attach) and the like follow only when it does what it should.
  - Nothing on the host is changed, so the task is never changed; it does the same in check mode.
options:
  prog:
    description:
      - Pin of the program. A relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
      - The program's type is one of C(xdp), C(sched_cls), C(sched_act), C(cgroup_skb) and
        C(socket_filter).
    type: path
    required: true
  packets:
    description: What to run it on, one after the other.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: What to call the packet in messages and in the result.
        type: str
      data:
        description:
          - The packet in hexadecimal, from its Ethernet header on. Spaces, line breaks and colons
            between bytes are ignored.
        type: str
      pcap:
        description:
          - A capture on the target, as C(tcpdump -w) writes it on an Ethernet interface. Each of
            its packets is run, and the same is expected of each.
        type: path
      expect:
        description: What is to come of it. What is not named is not looked at.
        type: dict
        suboptions:
          verdict:
            description:
              - V(pass), V(drop), V(tx), V(redirect) or V(aborted), as far as the program's type has
                it, or the number that the program returns.
              - Of C(sched_cls), V(pass) is C(TC_ACT_OK) or C(TC_ACT_UNSPEC). Of C(socket_filter),
                V(pass) is any number of bytes but 0.
            type: str
          data:
            description: The packet that comes out, in hexadecimal.
            type: str
          unchanged:
            description: Whether the packet comes out as it went in.
            type: bool
  repeat:
    description:
      - How often each packet is run for C(ns), at most 1000000. Verdict and packet are those of the
        first run, as each further one starts from what the one before left.
    type: int
    default: 1
notes:
  - The program runs for real. What it writes to its maps, counters for one, stays written.
  - The room before an XDP packet is filled with bytes of 0xFF first, as a driver may leave anything
    there, so that a header that the program makes room for and does not write in full shows.
    Where the kernel cannot, C(poisoned) is false.
  - Programs of C(cgroup_skb) and C(socket_filter) see a packet from its network header on. The
    Ethernet header says which protocol that is; it comes out as zeros, and is not compared.
  - The packet seems to have come in on the loopback interface of the network namespace that the
    module runs in.
  - In check mode, a program that is not pinned yet is a warning.
extends_documentation_fragment: [ebpf.fleet.common.reads]
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.xdp_attach
"""

EXAMPLES = r"""
- name: The firewall lets ARP pass, and drops what the attack looked like
  ebpf.fleet.bpf_test_run:
    prog: firewall/xdp_firewall
    packets:
      - name: ARP request
        data: >-
          ff:ff:ff:ff:ff:ff 02:00:00:00:00:01 08:06
          00 01 08 00 06 04 00 01 02 00 00 00 00 01 c0 00 02 01 00 00 00 00 00 00 c0 00 02 02
        expect: {verdict: pass, unchanged: true}
      - name: attack
        pcap: /var/tmp/attack.pcap
        expect: {verdict: drop}

- name: It is attached
  ebpf.fleet.xdp_attach:
    interface: eth0
    prog: firewall/xdp_firewall
    link: firewall/link

- name: What a packet costs is known
  ebpf.fleet.bpf_test_run:
    prog: firewall/xdp_firewall
    packets:
      - {name: usual, pcap: /var/tmp/usual.pcap}
    repeat: 100000
  register: cost
"""

RETURN = r"""
prog_id:
  description: The kernel's id of the program, 0 in check mode when it is not pinned yet.
  type: int
  returned: success
poisoned:
  description: Whether the room before the packets was filled with 0xFF.
  type: bool
  returned: success
packets:
  description: What came of each packet, in their order.
  type: list
  elements: dict
  returned: when the program could be run
  contains:
    name:
      description: The name, and for a capture the packet's number in it.
      type: str
      sample: "attack #1"
    verdict:
      description: The verdict by name, or its number when it has none.
      type: str
      sample: drop
    number:
      description: What the program returned.
      type: int
    data:
      description: The packet that came out, in hexadecimal.
      type: str
    changed:
      description: Whether it is another one than went in.
      type: bool
    ns:
      description: Mean duration of a run in nanoseconds, as the kernel measured it.
      type: int
    met:
      description: Whether all that was expected of it came true.
      type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import test_run
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.BPF_TEST_RUN, supports_check_mode=True)
    try:
        front.require_text(module.params)
        require_root()
        wanted = test_run.request(module.params)
        result = test_run.run(wanted, module.check_mode)
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "bpf(2)"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    if not result.prog_id:
        module.warn(f"no program is pinned at {wanted.pin} yet; a real run needs it")
    problems = result.problems()
    if problems:
        module.fail_json(msg=problems, **test_run.report(result))
    module.exit_json(changed=False, **test_run.report(result))


if __name__ == "__main__":
    main()
