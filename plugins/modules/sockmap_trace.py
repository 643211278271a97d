#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell which connections a sockmap accelerator picks up."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sockmap_trace
short_description: Tell which connections a sockmap accelerator picks up, and why not the others
version_added: 0.1.0
description:
  - Reads what the data plane of P(ebpf.fleet.sockmap_accelerator#role) reports of each TCP socket
    that is established in its control groups, for a bounded time, and puts it together to
    connections. Needs no compiler and no BCC.
  - Where the accelerator is declared without events, they are switched on meanwhile. A process of
    its own switches them off afterwards, also when the module is killed.
options:
  pin_dir:
    description:
      - Directory in which the accelerator is pinned, with its maps in C(maps) below it. A relative
        path lies in C(/sys/fs/bpf/ebpf_fleet/).
    type: path
    default: sockmap
  duration:
    description: Seconds.
    type: float
    default: 10
  max_events:
    description:
      - How many events end it early, at most 1000000. A connection has four when all goes well.
    type: int
    default: 10000
attributes:
  check_mode:
    description: Does the same.
    support: full
  idempotent:
    description:
      - Never changed, as it leaves the host as it was. What it returns is another observation each
        time.
    support: full
extends_documentation_fragment: [ebpf.fleet.common.reads]
notes:
  - One reader at a time. Another program that reads the ring buffer takes events away.
  - A SIGINT to the module's process ends it early, with all that it has.
seealso:
  - module: ebpf.fleet.sockmap_probe
  - module: ebpf.fleet.bpf_trace
"""

EXAMPLES = r"""
- name: The connections of half a minute are known
  ebpf.fleet.sockmap_trace:
    duration: 30
  register: trace

- name: Those that stayed on TCP are shown, with the reasons
  ansible.builtin.debug:
    msg: "{{ trace.connections | rejectattr('state', 'eq', 'accelerated') }}"
"""

RETURN = r"""
connections:
  description: The connections of which anything was reported, in the order of time.
  type: list
  elements: dict
  returned: success
  contains:
    at:
      description: When it was first reported, in UTC.
      type: str
    local_address:
      description: The address of the end that was reported first, as that end sees it.
      type: str
    local_port:
      description: Its port.
      type: int
    remote_address:
      description: The other end's address.
      type: str
    remote_port:
      description: The other end's port.
      type: int
    ends:
      description:
        - Of how many ends something was reported. Behind address translation each end is a
          connection by itself.
      type: int
    state:
      description:
        - V(accelerated), what was sent skipped the stack; V(fell_back), it did, and then went
          through TCP in a direction at least; V(tcp), it never did; V(undecided), nothing was sent.
      type: str
    reasons:
      description:
        - Why it went through TCP, by the names of the accelerator's counters, such as
          V(not_policy), V(no_peer), V(backlog) and V(one_way).
      type: list
      elements: str
lost:
  description: How many events were not reported, as the ring buffer was full.
  type: int
  returned: success
ended_by:
  description: V(duration), V(max_events) or V(interrupt).
  type: str
  returned: success
started:
  description: When it began, in UTC.
  type: str
  returned: success
seconds:
  description: How long it took.
  type: float
  returned: success
"""

import math
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.paths import pin_path
from ansible_collections.ebpf.fleet.plugins.module_utils.trace import watch

ARGUMENTS = {
    "pin_dir": {"type": "path", "default": "sockmap"},
    "duration": {"type": "float", "default": 10},
    "max_events": {"type": "int", "default": 10000},
}


def request_of(params: dict) -> watch.Request:
    """The request, or a Failure that names the option that is wrong."""
    if not math.isfinite(params["duration"]) or not 0.1 <= params["duration"] <= 86400:
        raise Failure(f"duration: {params['duration']:g} is not from 0.1 to 86400")
    if not 0 < params["max_events"] <= 1_000_000:
        raise Failure(f"max_events: {params['max_events']} is not from 1 to 1000000")
    maps = os.path.join(pin_path(params["pin_dir"]), "maps")
    return watch.Request(maps, params["duration"], params["max_events"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        front.require_text(module.params)
        require_root()
        found = watch.watch(request_of(module.params))
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "trace"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    if found["lost"]:
        module.warn(f"{found['lost']} events were lost, as the ring buffer was full")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
