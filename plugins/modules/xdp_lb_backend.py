#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a host ready to serve behind an XDP load balancer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_lb_backend
short_description: Make a host ready to serve behind an XDP load balancer
version_added: 0.1.0
description:
  - Gives a server what services with C(dsr) and C(ipip) forwarding need of it - the address of the
    service on C(lo), silence about it in ARP, a tunnel device that unpacks, an C(rp_filter) that
    lets the packets in, and a TCP segment size that fits into the tunnel.
  - Which services these are is found in O(services), the same list that the balancer has. A service
    concerns this host when one of its backends has an address of the host. C(nat) services need
    nothing here.
  - What is no longer needed is taken back. What was there before is not - addresses that were on
    C(lo) already stay, and parameters of the kernel get back the value they had, unless somebody
    else has changed them since.
options:
  services:
    description:
      - Services as M(ebpf.fleet.xdp_lb_services) takes them. Of each only C(name), C(vip),
        C(forwarding) and the C(address) of its C(backends) are looked at.
      - A host that no service names is an error with O(state=present).
    type: list
    elements: dict
    default: []
  unpack:
    description:
      - What unpacks C(ipip) packets. V(device) makes a tunnel device for each address of this host
        that is a backend's (C(ipip) for IPv4, C(ip6tnl) in C(mode any) for IPv6).
      - V(none) leaves it to something else.
    type: str
    choices: [device, none]
    default: device
  mss:
    description:
      - Whether connections to an address that is reached by C(ipip) tell their clients a TCP
        segment size that leaves room for the tunnel's header. It is done by a copy of the default
        route in table 7790, which only packets from these addresses meet (rules 7790 and 7791).
      - Without it the balancer tells clients by ICMP that a packet is too big.
    type: bool
    default: true
  record:
    description:
      - The file that keeps what was changed, so that it can be taken back.
    type: path
    default: /var/lib/ebpf-fleet/xdp_lb_backend.json
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - ARP is silenced on the interface that has the backend's address (C(arp_ignore=1),
    C(arp_announce=2)). If the address of the service belongs to a network that another interface
    is on, set them there too.
  - C(rp_filter) becomes loose (2) where it is strict (1), on the tunnel devices and, for C(dsr), on
    the interface. Tunnel devices get the dummy address 192.0.0.8 (RFC 7600), as loose mode drops
    what comes in on a device without an IPv4 address.
  - The addresses get C(scope host) (IPv4) or are deprecated (IPv6), so that the host does not use
    them for connections of its own.
  - Anybody who can send to the host can send packets through a tunnel device. Let the firewall
    take protocols 4 and 41 from the balancers' source addresses only.
  - Nothing of this survives a reboot by itself; the role P(ebpf.fleet.xdp_lb_backend#role) has it
    done at each boot.
  - Needs the command C(ip) of iproute2 4.18 or later.
seealso:
  - module: ebpf.fleet.xdp_lb_services
"""

EXAMPLES = r"""
- name: The host serves what the balancer sends it
  ebpf.fleet.xdp_lb_backend:
    services:
      - name: web
        vip: 192.0.2.10
        forwarding: ipip
        backends:
          - address: 10.0.0.11
          - address: 10.0.0.12

- name: It does not any more
  ebpf.fleet.xdp_lb_backend:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["add tunnel lb4_1a2b3c4d", "add address 192.0.2.10 dev lo"]
services:
  description: Names of the services that this host serves, those with C(nat) included.
  returned: success
  type: list
  elements: str
vips:
  description: Addresses of services that are on C(lo); in check mode, as they are before.
  returned: success
  type: list
  elements: str
tunnels:
  description: Tunnel devices that unpack; in check mode, as they are before.
  returned: success
  type: list
  elements: str
routes:
  description: The default routes for packets from the addresses of C(ipip) services.
  returned: success
  type: dict
  sample: {ipv4: default via 10.0.0.254 dev eth0 advmss 1440, ipv6: null}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import backend


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.XDP_LB_BACKEND, supports_check_mode=True)
    front.run(module, backend, backend.desired)


if __name__ == "__main__":
    main()
