#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount the BPF file system, once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpffs
short_description: Mount the BPF file system, once
version_added: 0.1.0
description:
  - Makes sure that a BPF file system (bpffs), in which programs, maps and links are pinned, is
    mounted.
  - Never mounts one over another. The kernel would accept that, and hide every pin. File systems
    that are stacked already, or hidden below another mount, are reported and left as they are.
options:
  path:
    description:
      - Where the BPF file system is mounted. The directory must exist and be empty.
      - A path inside a mounted BPF file system is accepted as it is when O(state=present).
    type: path
    default: /sys/fs/bpf
  mode:
    description:
      - Permissions of the root directory, as octal text such as V('0700').
      - Not set, a mounted file system keeps what it has, and a new one gets V('0700'), as systemd
        does it.
    type: raw
extends_documentation_fragment:
  - ebpf.fleet.common
notes:
  - systemd mounts C(/sys/fs/bpf) by itself at each boot, so a mount there lasts. Elsewhere, or
    without systemd, a mount is gone after a reboot, like all pins are. C(/etc/fstab) is never
    edited.
  - O(state=absent) unmounts only what holds no pins and is in use by nobody. On a host with
    systemd, leave C(/sys/fs/bpf) mounted.
  - A mount belongs to the mount namespace in which the module runs.
  - In check mode the kernel makes a BPF file system that is mounted nowhere and drops it, or is
    asked whether the mounted one is in use.
seealso:
  - module: ebpf.fleet.bpf_info
"""

EXAMPLES = r"""
- name: The BPF file system is mounted
  ebpf.fleet.bpffs:

- name: The BPF file system is mounted, and its group may enter
  ebpf.fleet.bpffs:
    mode: "0750"

- name: The BPF file system of a test is gone
  ebpf.fleet.bpffs:
    path: /run/test/bpf
    state: absent
"""

RETURN = r"""
bpffs:
  description: The path as it is now; in check mode, as it is before.
  returned: success
  type: dict
  sample:
    path: /sys/fs/bpf
    mounted: true
    mode: "0700"
    pins: [ebpf_fleet/web/sockops]
  contains:
    path:
      description: The path with symbolic links resolved.
      type: str
    mounted:
      description: Whether the path lies in a BPF file system.
      type: bool
    mode:
      description: Permissions of the path, empty when not mounted.
      type: str
    pins:
      description: The pins below the path, relative to it.
      type: list
      elements: str
actions:
  description: What was done, in order; in check mode, what would be done.
  returned: success
  type: list
  elements: str
  sample: ["mount bpffs /sys/fs/bpf"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front, options
from ansible_collections.ebpf.fleet.plugins.module_utils.resource import bpffs


def main() -> None:
    """Run the module."""
    module = AnsibleModule(**options.BPFFS, supports_check_mode=True)
    front.run(module, bpffs, bpffs.desired)


if __name__ == "__main__":
    main()
