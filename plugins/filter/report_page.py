# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet as one HTML page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_page
author: The ebpf.fleet authors (@ebpf-fleet)
version_added: 0.1.0
short_description: Turn what hosts said of their eBPF into one HTML page
description:
  - What the playbook C(ebpf.fleet.report) writes. The page needs nothing but itself, and everything
    that comes from a host is escaped.
options:
  _input:
    description:
      - What was seen of each host, by its name. C(info) is the result of M(ebpf.fleet.bpf_info),
        C(accelerator) that of M(ebpf.fleet.sockmap_info) and C(balancer) that of
        M(ebpf.fleet.xdp_lb_info). C(drift) are rows of what, state and why, C(addresses) the
        host's addresses and C(groups) its groups. C(shared_kernel) says whether it sees objects
        of other hosts.
      - A host whose C(info) has no releases could not be asked, and is shown as such.
    type: dict
    required: true
  title:
    description: The title of the page.
    type: str
    default: eBPF fleet report
  made:
    description: When it was made.
    type: str
    required: true
  words:
    description: What the reasons of the accelerator mean.
    type: dict
    default: {}
  figures:
    description: What was measured before and after, as C(docs/report.md) explains it.
    type: dict
    default: {}
  before:
    description:
      - The page that was made last. When nothing but the time differs, it is the result.
    type: str
    default: ""
seealso:
  - module: ebpf.fleet.bpf_info
  - module: ebpf.fleet.sockmap_info
  - module: ebpf.fleet.xdp_lb_info
"""

EXAMPLES = r"""
- name: What the host holds is known
  ebpf.fleet.bpf_info:
    gather: [releases, programs, maps, links, attachments]
  register: bpf

- name: It is a page
  ansible.builtin.copy:
    content: "{{ {inventory_hostname: {'info': bpf}} | ebpf.fleet.report_page(made='today') }}"
    dest: report.html
    mode: "0644"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

from ansible_collections.ebpf.fleet.plugins.plugin_utils.report import figures as measured
from ansible_collections.ebpf.fleet.plugins.plugin_utils.report import page


def report_page(
    seen: Mapping[str, Mapping[str, Any]],
    title: str = "eBPF fleet report",
    made: str = "",
    words: Mapping[str, str] | None = None,
    figures: Mapping[str, Any] | None = None,
    before: str = "",
) -> str:
    """The page. Raises AnsibleFilterError when the figures are not what they should be."""
    try:
        asked = page.Asked(str(title), str(made), words or {}, figures or {})
        return page.unless_new(page.render(seen, asked), str(before))
    except measured.NoFigures as error:
        raise AnsibleFilterError(f"report_page: {error}") from error


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        return {"report_page": report_page}
