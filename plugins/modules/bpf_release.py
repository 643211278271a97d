#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Choose which stored release of a stack runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_release
short_description: Choose which stored release of a stack runs
version_added: 0.1.0
description:
  - Makes a host run a release that M(ebpf.fleet.bpf_stack) stored on it, without the inventory,
    variables and objects that it came from.
  - Every state is a named goal, never a step relative to what runs. A second run changes nothing.
  - A release takes over as one transaction, as with M(ebpf.fleet.bpf_stack). A failure leaves what
    runs.
  - It works from every half state, after a reboot, and when the release to leave no longer loads.
options:
  name:
    description: Name of the stack.
    type: str
    required: true
  release:
    description: Name of the release. Needed unless O(state=absent).
    type: str
  state:
    description:
      - V(active) makes O(release) the one that runs.
      - V(withdrawn) makes a host that runs O(release) run the one that was there before it, as it
        is recorded; the whole stack goes when there was none. A host that does not run it does
        nothing.
      - V(confirmed) confirms O(release) over a new connection, so that the host does not go back by
        itself (O(ebpf.fleet.bpf_stack#module:confirm_timeout)). It is an error when the host has
        gone back already.
      - V(absent) forgets O(release), which must not be the one that runs. Without O(release) it
        takes the whole stack away.
    type: str
    choices: [active, withdrawn, confirmed, absent]
    default: active
  keep:
    description:
      - How many releases the host keeps. The one that runs and the one before it are always kept.
        Without this nothing is forgotten.
    type: int
attributes:
  action:
    description: Asks the engine on the host, and sends it when the host has none of this version.
    support: full
  async:
    description: The task talks with the host more than once.
    support: none
extends_documentation_fragment:
  - ebpf.fleet.common
seealso:
  - module: ebpf.fleet.bpf_stack
  - module: ebpf.fleet.bpf_info
"""

EXAMPLES = r"""
- name: Hosts on the bad release run what they ran before it
  ebpf.fleet.bpf_release:
    name: filter
    release: 2026-11-21.1
    state: withdrawn

- name: The release of last week runs
  ebpf.fleet.bpf_release:
    name: filter
    release: 2026-11-14.2

- name: The release has passed its proofs
  ebpf.fleet.bpf_release:
    name: filter
    release: 2026-11-21.1
    state: confirmed

- name: Nothing is left of the stack
  ebpf.fleet.bpf_release:
    name: filter
    state: absent
"""

RETURN = r"""
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
active:
  description: The release that runs now; none when the stack is gone.
  type: str
  returned: success
  sample: 2026-11-14.2
previous:
  description: The release that ran before; none when there was none.
  type: str
  returned: success
releases:
  description: The stored releases, the oldest first.
  type: list
  elements: str
  returned: success
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
    module = AnsibleModule(**options.BPF_RELEASE, supports_check_mode=True)
    module.fail_json(
        msg="bpf_release works through its action plugin alone; run it as a task, "
        "ebpf.fleet.bpf_release"
    )


if __name__ == "__main__":
    main()
