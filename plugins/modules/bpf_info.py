#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what BPF there is on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_info
short_description: Tell what BPF there is on a host, and whose it is
version_added: 0.1.0
description:
  - Reads the programs, maps, links, pins and attachments of a host, and what its kernel can do. It
    changes nothing.
  - Each object is V(ours) or V(foreign) (RV(programs[].owner)). A program is ours when it carries
    the provenance that M(ebpf.fleet.bpf_prog) binds to it. A map is ours when such a program uses
    it or when it is pinned in a directory named C(ebpf_fleet), a link when it runs such a program
    or is pinned there.
  - Each object has a condition. V(drifted) contradicts our pins, such as a program that someone
    else loaded at our pin, or an older program that still runs at a hook. V(zombie) is a link whose
    cgroup, interface or map is gone. V(orphan) is ours and held by no pin and no attachment that
    the host shows; sockets of a former sockmap may hold it, or an attachment in a network namespace
    without a name. Everything else is V(ok). What a playbook declares is not known here.
options:
  gather:
    description:
      - What to tell. The features take some milliseconds more, as they are tried.
      - The V(releases) are those that M(ebpf.fleet.bpf_stack) stored, each stack held against what
        the kernel has now.
    type: list
    elements: str
    choices: [programs, maps, links, attachments, features, releases]
    default: [programs, maps, links, attachments]
  owner:
    description:
      - List V(all) objects, or only V(ours), or only the V(foreign) ones.
    type: str
    choices: [all, ours, foreign]
    default: all
  files:
    description:
      - Files to look at along the way, such as kernel parameters below C(/proc/sys). A play that
        needs several of them asks once; what they are is in RV(host.files).
    type: list
    elements: path
    default: []
extends_documentation_fragment: [ebpf.fleet.common.reads]
notes:
  - Pins are those of the BPF file systems that the module's mount namespace can see.
  - Cgroups are searched below the cgroup2 mount. Interfaces are searched in the module's network
    namespace and in those that C(ip netns) lists; a link to an interface elsewhere is told with the
    interface's index alone, as the kernel tells it.
  - What is attached to a sockmap without a link is told since Linux 5.18.
seealso:
  - module: ebpf.fleet.bpf_prog
  - module: ebpf.fleet.bpf_release
  - module: ebpf.fleet.bpffs
"""

EXAMPLES = r"""
- name: What runs on the host is known
  ebpf.fleet.bpf_info:
  register: bpf

- name: Nothing of ours is broken
  ansible.builtin.assert:
    that: bpf.summary.links.zombie == 0 and bpf.summary.attachments.drifted == 0

- name: What others have attached is known
  ebpf.fleet.bpf_info:
    gather: [attachments]
    owner: foreign

- name: Each stack is as its release declares
  ebpf.fleet.bpf_info:
    gather: [releases]
  register: bpf
  failed_when: bpf.releases | rejectattr('condition', 'eq', 'in_sync') | list

- name: The kernel has sockmap links
  ebpf.fleet.bpf_info:
    gather: [features]
  register: bpf
  failed_when: not bpf.features.abilities.sockmap_link.supported
"""

RETURN = r"""
host:
  description: What everything else depends on.
  returned: success
  type: dict
  contains:
    kernel:
      description: The kernel's release.
      type: str
    machine:
      description: The architecture.
      type: str
    bpffs:
      description: Where BPF file systems are mounted, those hidden below other mounts left out.
      type: list
      elements: str
    cgroup2:
      description: Where cgroup2 is mounted, empty when nowhere.
      type: str
      sample: /sys/fs/cgroup
    libbpf:
      description: Whether libbpf is found, its version, and what is wrong with it.
      type: dict
      sample: {"found": true, "version": "1.1", "problem": ""}
    sockmap_fionread:
      description:
        - Whether FIONREAD of a socket in a sockmap counts redirected bytes, as applications expect.
          Kernels before 2026 answer 0 while such bytes wait.
      type: bool
    files:
      description:
        - Each of O(files) by its path, null for one that is not there. C(kind) is V(file),
          V(directory) or V(other), C(sha256) that of a file of at most 16 MiB, and C(text) what the
          file holds when that is text of at most 64 KiB.
      type: dict
      sample: {"/proc/sys/vm/swappiness": {"kind": "file", "sha256": "39a8…", "text": "60\n"}}
programs:
  description: The loaded programs.
  returned: when gathered
  type: list
  elements: dict
  contains:
    id:
      description: The kernel's id.
      type: int
    type:
      description: The program type.
      type: str
    name:
      description: The name, cut to 15 characters by the kernel.
      type: str
    tag:
      description: The kernel's digest of the instructions, in hex.
      type: str
    map_ids:
      description: The maps that it uses.
      type: list
      elements: int
    btf_id:
      description: Its BTF, 0 for none.
      type: int
    load_time:
      description: When it was loaded, in nanoseconds since boot.
      type: int
    uid:
      description: Who loaded it.
      type: int
    gpl:
      description: Whether its license is compatible with the GPL.
      type: bool
    verified_instructions:
      description: How many instructions the verifier looked at, 0 before Linux 5.16.
      type: int
    run_time:
      description: Nanoseconds of running, 0 unless kernel.bpf_stats_enabled is set.
      type: int
    run_count:
      description: How often it ran, 0 unless kernel.bpf_stats_enabled is set.
      type: int
    provenance:
      description: What it was loaded from, when we loaded it.
      type: dict
      sample: {"owner": "ebpf.fleet", "stack": "web"}
    pins:
      description: Where it is pinned.
      type: list
      elements: str
    attached:
      description: Whether it is attached anywhere that the host shows.
      type: bool
    owner:
      description: V(ours) or V(foreign).
      type: str
    condition:
      description: V(ok), V(drifted), V(zombie) or V(orphan).
      type: str
    reason:
      description: Why it is not ok, empty when it is.
      type: str
maps:
  description:
    - The maps, with C(id), C(type), C(name), C(key_size), C(value_size), C(max_entries), C(flags),
      C(btf_id), C(btf_key_type_id), C(btf_value_type_id), C(pins), C(owner), C(condition) and
      C(reason).
  returned: when gathered
  type: list
  elements: dict
  contains:
    prog_ids:
      description: The programs that use it.
      type: list
      elements: int
links:
  description:
    - The links, with C(id), C(type), C(prog_id), C(attach_type), C(cgroup_id), C(ifindex),
      C(netns_ino), C(map_id), C(pins), C(owner), C(condition) and C(reason).
  returned: when gathered
  type: list
  elements: dict
  contains:
    target:
      description: What it is attached to, empty when that is gone.
      type: str
attachments:
  description:
    - What is attached where, by a link or without one, with C(owner), C(condition) and C(reason).
  returned: when gathered
  type: list
  elements: dict
  contains:
    hook:
      description: The kind of hook.
      type: str
      sample: cgroup
    target:
      description: The cgroup's path, the interface or the map.
      type: str
    attach_type:
      description: The attach type.
      type: str
      sample: cgroup_sock_ops
    prog_id:
      description: The program.
      type: int
    prog_name:
      description: The program's name.
      type: str
    link_id:
      description: The link that holds it, 0 for none.
      type: int
    mode:
      description:
        - How it is attached, such as V(multi) to a cgroup or V(native) to an interface, or a tc
          filter's priority and handle.
        - Of a component (attach type V(ext)), the mode, the dispatcher that calls it, and its
          priority.
      type: str
    netns:
      description: The name of the interface's network namespace, empty for the module's own.
      type: str
features:
  description: What the kernel can do, found out by trying it.
  returned: when gathered
  type: dict
  contains:
    abilities:
      description: What this collection makes use of.
      type: dict
      sample: {"sockmap_link": {"supported": true, "since": "6.10"}}
    program_types:
      description: The program types that can be loaded with nothing to attach to.
      type: dict
    map_types:
      description: The map types.
      type: dict
releases:
  description: The stacks of the host, with the releases that it stores.
  returned: when gathered
  type: list
  elements: dict
  contains:
    name:
      description: The stack.
      type: str
    condition:
      description:
        - V(in_sync) when the host is as the active release declares, V(drifted) when it is not (see
          RV(releases[].actions)).
        - V(unfinished) when a change was interrupted or waits to be confirmed, V(fallback) when the
          active release did not load at boot and another one runs, V(removed) when releases are
          stored and none is active.
      type: str
    reason:
      description: Why it is in that condition, for people.
      type: str
    actions:
      description: What the next run, or M(ebpf.fleet.bpf_release), would do to repair it.
      type: list
      elements: str
    active:
      description: The release that is declared, none when there is none.
      type: str
    running:
      description: The release that runs. It differs in a fallback alone.
      type: str
    predecessor:
      description: What the host goes back to when the active release is withdrawn.
      type: str
    boot:
      description: When a reboot replays the stack, V(early), V(network) or V(never).
      type: str
    releases:
      description: The stored releases, the oldest first.
      type: list
      elements: dict
      contains:
        name:
          description: The release.
          type: str
        active:
          description: Whether it is the one that is declared.
          type: bool
        created:
          description: When it was stored, in UTC.
          type: str
        activated:
          description: When it was made active, each time.
          type: list
          elements: str
        predecessor:
          description: What was active before it.
          type: str
        reverted:
          description: When the host took it back because nobody confirmed it.
          type: str
        by:
          description: The run that brought it, with its controller, user, playbook and time.
          type: dict
    pending:
      description: The change that is not over, with its release, where it came from, its phase and,
        while it waits to be confirmed, C(confirm_by).
      type: dict
    fallback:
      description: What runs in place of what is declared since when, and why.
      type: dict
summary:
  description:
    - For each list that was gathered, how many objects it has in C(total), C(ours) and C(foreign),
      and how many are C(drifted), C(zombie) and C(orphan).
  returned: when a list is gathered
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils.resource import inventory_report
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "gather": {
                "type": "list",
                "elements": "str",
                "choices": ["programs", "maps", "links", "attachments", "features", "releases"],
                "default": ["programs", "maps", "links", "attachments"],
            },
            "owner": {"type": "str", "choices": ["all", "ours", "foreign"], "default": "all"},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        wanted = module.params
        found = inventory_report.gather(wanted["gather"], wanted["owner"], wanted["files"])
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        failure = from_os_error(error, str(error.filename or "bpf(2)"))
        module.fail_json(msg=str(failure), **failure.details)
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
