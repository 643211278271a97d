#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a sockmap accelerator does."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_info
short_description: Tell what a sockmap accelerator does, and who talks to whom through it
version_added: 0.1.0
description:
  - Reads the counters of the accelerator that the role P(ebpf.fleet.sockmap_accelerator#role) sets
    up, and which TCP connections between two sockets of the host it has, out of its pinned maps and
    the kernel's list of sockets. Changes nothing.
options:
  pin_dir:
    description:
      - Directory in which the accelerator is pinned, with its maps in C(maps) below it. A relative
        path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    default: sockmap
extends_documentation_fragment: [ebpf.fleet.common.reads]
notes:
  - Connections are those of the module's network namespace, both of whose ends are in it. Those of
    containers with a namespace of their own are counted in RV(sockets) and in the counters.
seealso:
  - module: ebpf.fleet.sockmap_trace
  - module: ebpf.fleet.sockmap_probe
"""

EXAMPLES = r"""
- name: What the accelerator does is known
  ebpf.fleet.sockmap_info:
  register: accelerator

- name: It has never run out of room
  ansible.builtin.assert:
    that: accelerator.counters.map_full == 0
"""

RETURN = r"""
counters:
  description:
    - What the data plane counted since it was loaded, by the names of C(struct counters) in
      C(bpf/sockmap/sockmap.h).
  type: dict
  returned: success
  sample: {"established": 1022, "admitted": 1020, "not_policy": 2, "redirected_bytes": 73400320}
sockets:
  description: How many sockets it has now.
  type: int
  returned: success
max_sockets:
  description: How many it has room for.
  type: int
  returned: success
connections:
  description:
    - The connections that are established now and have both ends on the host, accelerated or not,
      with those that differ in the client's port alone in one, the most numerous first.
  type: list
  elements: dict
  returned: success
  contains:
    client_address:
      description: Address of the end that connected.
      type: str
    client_cgroup:
      description: Its control group, empty where it is not below the mount or Linux is before 5.8.
      type: str
    server_address:
      description: Address of the end that was connected to.
      type: str
    server_port:
      description: Its port.
      type: int
    server_cgroup:
      description: Its control group.
      type: str
    accelerated:
      description: Whether the accelerator has them.
      type: bool
    count:
      description: How many there are.
      type: int
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import sockmap_census
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.paths import pin_path


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"pin_dir": {"type": "path", "default": "sockmap"}}, supports_check_mode=True
    )
    try:
        require_root()
        found = sockmap_census.gather(pin_path(module.params["pin_dir"]))
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "bpf(2)"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
