#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Open connections to a service, as its clients do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_lb_probe
short_description: Open connections to a load-balanced service, as its clients do
version_added: 0.1.0
description:
  - Opens TCP connections to a service one after the other, each from another port, closes them, and
    says how many were answered. With enough of them every backend is asked.
  - Needs no privileges. Runs where clients are; a balancer cannot ask its own services.
options:
  address:
    description: The service's address, IPv4 or IPv6.
    type: str
    required: true
  port:
    description: The service's port.
    type: int
    required: true
  connections:
    description: How many connections to open, at most 65536.
    type: int
    default: 32
  timeout:
    description: Seconds to wait for each answer.
    type: float
    default: 2
  give_up:
    description: After how many connections without an answer to stop.
    type: int
    default: 4
extends_documentation_fragment: [ebpf.fleet.common.reads]
seealso:
  - module: ebpf.fleet.xdp_lb_info
"""

EXAMPLES = r"""
- name: The service answers every time
  ebpf.fleet.xdp_lb_probe:
    address: 192.0.2.10
    port: 80
    connections: 64
  register: asked
  failed_when: asked.failures | length > 0
"""

RETURN = r"""
answered:
  description: How many connections were answered.
  returned: success
  type: int
failures:
  description: Why the others were not.
  returned: success
  type: list
  elements: str
  sample: ["timed out"]
"""

import ipaddress
import socket

from ansible.module_utils.basic import AnsibleModule

ARGUMENTS = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "connections": {"type": "int", "default": 32},
    "timeout": {"type": "float", "default": 2},
    "give_up": {"type": "int", "default": 4},
}


def ask(place: tuple[str, int], timeout: float) -> str:
    """Why a connection was not answered, "" when it was."""
    try:
        with socket.create_connection(place, timeout):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    try:
        address = str(ipaddress.ip_address(options["address"]))
    except ValueError:
        module.fail_json(msg=f"address: {options['address']!r} is no IPv4 or IPv6 address")
    for option, most in (("port", 65535), ("connections", 65536), ("give_up", 65536)):
        if not 0 < options[option] <= most:
            module.fail_json(msg=f"{option}: {options[option]} is not from 1 to {most}")
    if options["timeout"] <= 0:
        module.fail_json(msg=f"timeout: {options['timeout']} is not above 0")
    answered, failures = 0, []
    for dummy in range(options["connections"]):
        failure = ask((address, options["port"]), options["timeout"])
        if not failure:
            answered += 1
            continue
        failures.append(failure)
        if len(failures) >= options["give_up"]:
            break
    module.exit_json(changed=False, answered=answered, failures=failures)


if __name__ == "__main__":
    main()
