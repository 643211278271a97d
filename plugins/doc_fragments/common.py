# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation that the modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Options and attributes of every module that converges something, or that only looks."""

    DOCUMENTATION = r"""
options:
  state:
    description:
      - Whether the resource is to exist.
    type: str
    choices: [present, absent]
    default: present
  lock_timeout:
    description:
      - Seconds to wait for another run on the same host before giving up.
    type: int
    default: 60
attributes:
  check_mode:
    description: Predicts what a real run does, and lets the kernel confirm it where the kernel can.
    support: full
  diff_mode:
    description: Shows each target before and after, in the terms of the options.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  platform:
    description: The systems this runs on.
    support: full
    platforms: linux
requirements:
  - Linux 5.10 or later, root
  - Python 3.9 or later on the target
author:
  - The ebpf.fleet authors (@ebpf-fleet)
"""

    READS = r"""
attributes:
  check_mode:
    description: Changes nothing, in check mode or not.
    support: full
  diff_mode:
    description: There is nothing to show, as nothing changes.
    support: N/A
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  platform:
    description: The systems this runs on.
    support: full
    platforms: linux
requirements:
  - Linux 5.10 or later, root
  - Python 3.9 or later on the target
author:
  - The ebpf.fleet authors (@ebpf-fleet)
"""
