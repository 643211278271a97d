#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Declare the services of an XDP load balancer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_lb_services
short_description: Declare the services of an XDP load balancer
version_added: 0.1.0
description:
  - Writes services and their backends into the pinned maps of the load balancer that the role
    P(ebpf.fleet.xdp_lb#role) sets up. O(services) is the whole list; a service or backend that is
    not in it is removed.
  - Nothing is loaded anew and no connection is disturbed by what changes around it. New backends
    are there before the ring that names them, a ring is replaced by another as a whole, and
    what is removed is no longer named by anything when it goes.
  - Which backend a connection gets depends on the addresses, ports and weights of a service's
    backends alone (Maglev hashing). Balancers with the same declaration, in any order, agree; the
    digest of the ring says so.
  - A backend that leaves the ring (V(draining), or removed, or down by its health checks) moves its
    own share of new connections and next to nothing else. Connections that are open stay where they
    are while their backend is V(active) or V(draining).
  - What was changed in the maps behind the declaration's back is found and repaired.
options:
  pin_dir:
    description:
      - Directory in which the load balancer is pinned, with its maps in C(maps) below it. A
        relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    default: xdp_lb
  netns:
    description:
      - Network namespace of the interface that the load balancer runs on, by its name in
        C(ip netns) or by an absolute path. Routes to backends are looked up there.
      - Not set, it is the one in which the module runs.
    type: str
  services:
    description:
      - The services. Their order means nothing.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description:
          - What the service is called. It is known by this name; all else about it may change.
        type: str
        required: true
      vip:
        description:
          - The address that clients connect to, IPv4 or IPv6.
        type: str
        required: true
      port:
        description:
          - The port that clients connect to, or V(any). A service with the port goes before one
            with V(any) on the same O(services[].vip) and O(services[].protocol).
        type: str
        required: true
      protocol:
        description: The protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      forwarding:
        description:
          - How packets get to a backend.
          - V(nat) translates both ways; answers come back through the balancer. Backends need
            nothing, but see O(sources) as their client.
          - V(dsr) sends the packet as it is to the backend's link-layer address. The backend has to
            be on the same network as the balancer, has the O(services[].vip) on C(lo) and answers
            the client by itself.
          - V(ipip) sends the packet in another one, so that the backend may be anywhere. The
            backend unpacks it, has the O(services[].vip) on C(lo) and answers the client by itself.
            IPv4 may be sent in IPv4 or IPv6, IPv6 in IPv6.
        type: str
        choices: [nat, dsr, ipip]
        required: true
      scheduler:
        description: How backends are chosen. There is one way.
        type: str
        choices: [maglev]
        default: maglev
      affinity:
        description:
          - What decides on the backend. V(flow) is the client's address and port, V(source) its
            address alone, so that all connections of one client go to one backend.
        type: str
        choices: [flow, source]
        default: flow
      health_check:
        description:
          - That backends are checked, and how. The checks are made by the health service of the
            role P(ebpf.fleet.xdp_lb#role), which takes the same options.
          - Here it says that the health that was found is kept, and backends that are down get no
            new connections. Without it all backends count as up.
          - When more than half of the active backends are down, all of them are kept in the ring.
        type: dict
      backends:
        description:
          - The servers. A service needs at least one that is not V(disabled). Their order means
            nothing.
        type: list
        elements: dict
        default: []
        suboptions:
          address:
            description: The server's own address.
            type: str
            required: true
          port:
            description:
              - The port that the server listens on, with O(services[].forwarding=nat). By default
                it is the one that the client sent to, and with V(dsr) and V(ipip) no other is
                possible.
            type: int
          weight:
            description:
              - The backend's share of the connections in relation to the weights of the others, up
                to 65535.
              - V(0) is another way to write O(services[].backends[].state=draining).
            type: int
            default: 1
          state:
            description:
              - V(active) backends get connections.
              - V(draining) ones get no new connections and keep those they have.
              - V(disabled) ones get nothing; what connections they have break.
            type: str
            choices: [active, draining, disabled]
            default: active
  sources:
    description:
      - Addresses from which the balancer sends by itself. They are the outer source of V(ipip)
        packets to backends of their family, and what backends behind V(nat) see as their client and
        answer to. They have to lead to this balancer.
      - Changing one breaks the open connections of V(nat) services.
    type: dict
    default: {}
    suboptions:
      ipv4:
        description: The IPv4 address.
        type: str
      ipv6:
        description: The IPv6 address.
        type: str
  nat_ports:
    description:
      - Ports of O(sources) from which V(nat) connections to backends are made. The host must not
        use them itself towards backends; the default lies below its own (C(ip_local_port_range)).
      - There is a warning when services with V(nat) get ports that the host takes for connections
        of its own, those in C(ip_local_reserved_ports) left out.
    type: dict
    default: {}
    suboptions:
      first:
        description: The first port.
        type: int
        default: 1024
      last:
        description: The last port.
        type: int
        default: 32767
  idle_timeout:
    description:
      - Seconds after which a connection in which the client sent nothing counts as gone.
    type: dict
    default: {}
    suboptions:
      tcp:
        description: For TCP.
        type: int
        default: 7440
      udp:
        description: For UDP.
        type: int
        default: 300
  udp_grace:
    description:
      - Seconds after a change for which UDP clients that the change would move to another backend
        stay where they were, as it cannot be known which of them are new.
    type: int
    default: 60
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - O(state=absent) removes all services. The load balancer then passes every packet to the host.
  - How many services and backends there can be is decided when the load balancer is loaded, by
    O(ebpf.fleet.bpf_prog#module:map_max_entries) (C(xdp_lb_max_services) and C(xdp_lb_max_backends)
    of the role).
  - Backends that are new and that the host has no route to are refused, and so are V(dsr) backends
    behind a gateway, and V(ipip) backends over a link whose MTU leaves no room for the packets that
    every client may send (1280 bytes of IPv6, 576 of IPv4). A next hop that does not answer is
    warned of. Backends that are there already are not asked about; the data plane counts what it
    cannot send (C(drop_no_route), C(drop_no_neighbour)).
  - The diff shows each service that changes with its backends, their weight (C(0) unless
    V(active)), state, health, slots of the ring and connections that are still there;
    C(slots_moved), the slots that go to another backend; and C(slots_leaving), those whose open
    connections stay with the backend before.
  - To remove a backend, let it drain first. The task warns of connections that break.
  - In check mode, before the load balancer was loaded for the first time, the module predicts what
    it would do and warns that it could not ask the kernel.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.xdp_attach
"""

EXAMPLES = r"""
- name: The balancer serves the web and the name service
  ebpf.fleet.xdp_lb_services:
    sources:
      ipv4: 10.0.0.1
    services:
      - name: web
        vip: 192.0.2.10
        port: 80
        forwarding: ipip
        health_check: {type: http, path: /healthz}
        backends:
          - {address: 10.0.0.11, weight: 10}
          - {address: 10.0.0.12, weight: 10}
          - {address: 10.0.0.13, state: draining}
      - name: dns
        vip: 192.0.2.10
        port: 53
        protocol: udp
        forwarding: nat
        backends:
          - {address: 10.0.0.21, port: 5353}
          - {address: 10.0.0.22, port: 5353}

- name: What would a change move, and which connections are still there
  ebpf.fleet.xdp_lb_services:
    services: "{{ xdp_lb_services }}"
  check_mode: true
  diff: true

- name: The balancer serves nothing
  ebpf.fleet.xdp_lb_services:
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["change service web", "remove service dns"]
slots_moved:
  description:
    - How many slots of rings go to another backend than before. Each service's ring has 65,537.
  returned: success
  type: int
services:
  description: The services as they now are; in check mode, as they are before.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
    id:
      description: The number by which maps and counters know it on this host.
      type: int
    vip:
      description: The address that clients connect to.
      type: str
    port:
      description: The port that clients connect to; 0 for every port.
      type: int
    protocol:
      description: The protocol.
      type: str
    forwarding:
      description: How packets get to a backend.
      type: str
    affinity:
      description: What decides on the backend.
      type: str
    digest:
      description:
        - SHA-256 over the ring, in hexadecimal. It is the same on every balancer that sends the
          same clients to the same backends.
      type: str
    slots_moved:
      description: How many slots of its ring this run moved, or in check mode would move.
      type: int
    connections:
      description: Connections that the tables hold, which are those that the ring does not decide.
      type: int
    backends:
      description: Its backends.
      type: list
      elements: dict
      contains:
        id:
          description: The number by which maps and counters know it on this host.
          type: int
        address:
          description: Its address.
          type: str
        port:
          description: Its port; 0 for the one that the client sent to.
          type: int
        weight:
          description: Its declared weight.
          type: int
        state:
          description: V(active), V(draining) or V(disabled).
          type: str
        health:
          description: V(unknown), V(up) or V(down), as the health checks found it.
          type: str
        slots:
          description: How many slots of the ring lead to it.
          type: int
        leaving:
          description: From how many slots it keeps the connections it had, although they moved.
          type: int
        connections:
          description: How many connections the tables hold for it.
          type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import model, services


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.XDP_LB_SERVICES, supports_check_mode=True)
    front.run(module, services, model.desired)


if __name__ == "__main__":
    main()
