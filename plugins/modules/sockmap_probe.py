#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that data skips the stack."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_probe
short_description: Prove that data between two sockets of a control group skips the stack
version_added: 0.1.0
description:
  - Opens a connection between two sockets in a child of a control group, sends messages to and fro,
    checks every byte, and
    compares what was transferred with what the loopback interface carried.
  - The connection has a network namespace of its own, so no port of the host is used and nothing
    else is counted.
  - Changes nothing, and leaves nothing behind. It does the same in check mode.
options:
  cgroup:
    description: The control group, absolute or below the cgroup2 mount.
    type: str
    required: true
  address:
    description:
      - IPv4 or IPv6 address of the connection's ends, or a network, of which the first host is
        taken (of one with C(127.0.0.1) in it, that). It exists in the probe's network namespace
        only.
    type: str
    default: 127.0.0.1
  port:
    description: TCP port of the connection.
    type: int
    required: true
  messages:
    description: How many messages go each way, at most 65536.
    type: int
    default: 256
  size:
    description: Bytes of a message, at most 65536.
    type: int
    default: 16384
  counters:
    description: Pin of the data plane's counters, whose rise is returned.
    type: path
extends_documentation_fragment: [ebpf.fleet.common.reads]
"""

EXAMPLES = r"""
- name: A connection of the web servers is tried
  ebpf.fleet.sockmap_probe:
    cgroup: web
    port: 9001
    counters: /sys/fs/bpf/ebpf_fleet/sockmap/maps/counters
  register: proof

- name: Its data skipped the stack
  ansible.builtin.assert:
    that: proof.bytes_on_interface < proof.bytes_transferred / 10
"""

RETURN = r"""
bytes_transferred:
  description: What the two sockets sent each other.
  type: int
  returned: success
bytes_on_interface:
  description: What the loopback interface carried for it, headers, handshake and teardown included.
  type: int
  returned: success
counted:
  description:
    - By how much each of the data plane's counters rose meanwhile, other connections' share
      included.
  type: dict
  returned: success
  sample: {"admitted": 2, "redirected_bytes": 8388608}
totals:
  description: What the data plane's counters say afterwards.
  type: dict
  returned: success
  sample: {"admitted": 1022, "redirected_bytes": 73400320}
"""

import ipaddress

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import sockmap_probe
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.paths import pin_path

ARGUMENTS = {
    "cgroup": {"type": "str", "required": True},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "required": True},
    "messages": {"type": "int", "default": 256},
    "size": {"type": "int", "default": 16384},
    "counters": {"type": "path"},
}


def address_of(text: str) -> str:
    """The address itself, or a host of a network."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise Failure(f"address: {text!r} is no IP address and no network") from error
    address = network.network_address
    if network.num_addresses > 1:
        loopback = ipaddress.ip_address("127.0.0.1")
        address = loopback if loopback in network else address + 1
    if address.is_unspecified or address.is_multicast or address.is_link_local:
        raise Failure(f"address: {address} cannot be both ends of a connection; name one that can")
    return str(address)


def request_of(params: dict) -> sockmap_probe.Request:
    """The request, or a Failure that names the option that is wrong."""
    if not 0 < params["port"] < 65536:
        raise Failure(f"port: {params['port']} is not from 1 to 65535")
    for option in ("messages", "size"):
        if not 0 < params[option] <= 65536:
            raise Failure(f"{option}: {params[option]} is not from 1 to 65536")
    return sockmap_probe.Request(
        cgroup=params["cgroup"],
        address=address_of(params["address"]),
        port=params["port"],
        messages=params["messages"],
        size=params["size"],
        counters=pin_path(params["counters"]) if params["counters"] else "",
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        front.require_text(module.params)
        require_root()
        result = sockmap_probe.run(request_of(module.params))
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "probe"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    module.exit_json(
        changed=False,
        bytes_transferred=result.bytes_transferred,
        bytes_on_interface=result.bytes_on_interface,
        counted=result.counted,
        totals=result.totals,
    )


if __name__ == "__main__":
    main()
