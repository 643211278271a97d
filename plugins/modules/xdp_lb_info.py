#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what an XDP load balancer does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_lb_info
short_description: Tell what an XDP load balancer does
version_added: 0.1.0
description:
  - Reads services, backends, their health, what each has been sent, and which connections the
    tables hold, out of the pinned maps of the load balancer that the role
    P(ebpf.fleet.xdp_lb#role) sets up. Changes nothing.
options:
  pin_dir:
    description:
      - Directory in which the load balancer is pinned, with its maps in C(maps) below it. A
        relative path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    default: xdp_lb
extends_documentation_fragment: [ebpf.fleet.common.reads]
seealso:
  - module: ebpf.fleet.xdp_lb_services
"""

EXAMPLES = r"""
- name: What the balancer does is known
  ebpf.fleet.xdp_lb_info:
  register: balancer

- name: No backend is down
  ansible.builtin.assert:
    that: backends | selectattr('health', 'eq', 'down') | length == 0
  vars:
    backends: "{{ balancer.services | map(attribute='backends') | flatten }}"
"""

RETURN = r"""
services:
  description: The services, with what M(ebpf.fleet.xdp_lb_services) returns of them and counters.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      type: str
    counters:
      description:
        - Packets C(dropped), and packets in slots that have moved that the tables decided
          (C(moved_hits)) and that no table knew (C(moved_misses)).
      type: dict
      sample: {"dropped": 0, "moved_hits": 1200, "moved_misses": 3}
    backends:
      description:
        - The backends. C(counters) of each are C(packets) and C(bytes) that were forwarded to it
          and C(connections) that were opened.
      type: list
      elements: dict
reasons:
  description: How many packets were passed, dropped or answered, by reason.
  returned: success
  type: dict
  sample: {"pass_foreign": 10234, "drop_no_backend": 0, "echo_replied": 2}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.paths import pin_path
from ansible_collections.ebpf.fleet.plugins.module_utils.xdp_lb import census


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"pin_dir": {"type": "path", "default": "xdp_lb"}}, supports_check_mode=True
    )
    try:
        require_root()
        found = census.gather(pin_path(module.params["pin_dir"]))
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        failure = from_os_error(error, str(error.filename or "bpf(2)"))
        module.fail_json(msg=str(failure), **failure.details)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
