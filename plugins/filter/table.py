# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as lines whose columns are aligned."""

from __future__ import annotations

DOCUMENTATION = r"""
name: table
author: The ebpf.fleet authors (@ebpf-fleet)
version_added: 0.1.0
short_description: Turn rows into lines of text with aligned columns
description:
  - For reports at the end of a playbook, one line a host.
options:
  _input:
    description: The rows, each with the same number of cells.
    type: list
    elements: list
    required: true
  header:
    description: The names of the columns.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Which host has which release is said
  ansible.builtin.debug:
    msg: "{{ rows | ebpf.fleet.table(['host', 'release']) }}"
  vars:
    rows: [[web1, "2026-11-21"], [web10, "2026-11-20"]]
  # => ["host   release", "web1   2026-11-21", "web10  2026-11-20"]
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Iterable, Sequence

from ansible.errors import AnsibleFilterError


def table(rows: Iterable[Sequence[object]], header: Sequence[object] = ()) -> list[str]:
    """Lines of aligned cells. Raises AnsibleFilterError when rows differ in length."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if len({len(row) for row in cells}) > 1:
        raise AnsibleFilterError("table: rows and header differ in their number of cells")
    widths = [max(len(cell) for cell in column) for column in zip(*cells)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells
    ]


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, object]:
        return {"table": table}
