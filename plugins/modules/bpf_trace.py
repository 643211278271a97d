#!/usr/bin/python
# Copyright: (c) 2026, the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trace the kernel for a while."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bpf_trace
short_description: Trace the kernel for a while with a program in BCC dialect
version_added: 0.1.0
description:
  - Compiles a source in BCC dialect on the host, lets the kernel verify it, runs it for a bounded
    time and returns its events and tables as data.
  - BCC knows the types. Numbers stay numbers, arrays of C(char) are text, arrays of
    C(unsigned char) hexadecimal text, structures dictionaries. O(decode) says what else a field
    means.
  - Nothing stays on the host. Programs, maps, buffers and probes belong to one process, which ends
    with the task, and which the kernel kills when the task is killed. What BCC needs in the file
    system is mounted for that process alone.
  - The program begins to run when all of its functions have been verified and all buffers are
    there, and O(duration) begins with it.
options:
  source:
    description:
      - The program. Render it on the controller with P(ansible.builtin.template#lookup).
      - A function runs where its name says by BCC's convention (C(kprobe__FUNCTION),
        C(kretprobe__FUNCTION), C(raw_tracepoint__NAME), C(TRACEPOINT_PROBE(category, name))), or
        where O(probes) say.
      - C(BPF_PERF_OUTPUT) and C(BPF_RINGBUF_OUTPUT) deliver events, C(BPF_HASH), C(BPF_ARRAY),
        C(BPF_HISTOGRAM) and their like are returned as tables, C(BPF_STACK_TRACE) holds the stacks
        that O(decode) resolves.
      - What does not fit into a perf buffer is counted by the kernel, though what was lost after
        the last event that a CPU delivered is not. Nobody counts what does not fit into a ring
        buffer. A C(BPF_ARRAY) named like the output with C(_lost) behind it, which the program
        raises where the output refuses an event, is exact for both.
    type: str
    required: true
  duration:
    description: Seconds that the program runs.
    type: float
    default: 10
  max_events:
    description: How many events end the trace early, at most 1000000.
    type: int
    default: 10000
  max_bytes:
    description:
      - How many bytes of events, as the program sends them, end the trace early. Tables are
        returned as far as they fit into what is left.
    type: int
    default: 4194304
  probes:
    description:
      - Where functions run whose names do not say it. Each has one of O(probes[].kprobe),
        O(probes[].kretprobe), O(probes[].tracepoint) and O(probes[].raw_tracepoint). A function
        may run in several places of one type.
    type: list
    elements: dict
    suboptions:
      function:
        description: The function of the source.
        type: str
        required: true
      kprobe:
        description:
          - Kernel function at whose entry it runs. The prefix of a system call's function is
            adapted to the architecture.
        type: str
      kretprobe:
        description: Kernel function at whose return it runs.
        type: str
      tracepoint:
        description: Tracepoint, C(category:name).
        type: str
      raw_tracepoint:
        description: Tracepoint without its category.
        type: str
  cflags:
    description: Further flags for the compiler.
    type: list
    elements: str
  offsets:
    description:
      - Members of kernel structures, C(structure.member). The source gets the offset of each in
        bytes, in the kernel that runs, as the macro C(OFFSET_structure_member).
      - That is for C(bpf_probe_read_kernel()) without kernel headers, of which some take longer to
        compile than everything else. Needs a kernel with BTF.
    type: list
    elements: str
  decode:
    description:
      - Name of a field (of events, and of tables' keys and values) to what its value means.
      - V(time), nanoseconds of C(bpf_ktime_get_ns()), becomes the time in UTC.
      - V(ip), four or 16 bytes in network byte order, becomes an address; all zero, nothing.
      - V(port), 16 bits in network byte order, becomes a port.
      - V(errno) turns a negative number into the error's name.
      - V(symbol), an address in the kernel, becomes function+offset.
      - V(stack), or V(stack TABLE), an id that C(get_stackid()) returned, becomes the list of
        function+offset, innermost first. A stack that was not kept is an empty list.
      - V(tracepoint CATEGORY:NAME FIELD) becomes the name that this kernel prints for the number in
        that field of that tracepoint.
    type: dict
  tables:
    description: The tables to return, all by default.
    type: list
    elements: str
  perf_pages:
    description: Size of a perf buffer, in pages for each CPU, a power of two.
    type: int
    default: 64
  load_timeout:
    description: Seconds that compiling and verifying may take.
    type: float
    default: 600
attributes:
  check_mode:
    description:
      - The program is compiled and verified, and runs nowhere. What would be attached is in
        RV(probes).
    support: full
  idempotent:
    description:
      - Never changed, as a trace leaves the host as it was. What it returns is another observation
        each time.
    support: full
requirements:
  - BCC for that Python (Debian, C(python3-bpfcc)) and the headers of the running kernel; the role
    P(ebpf.fleet.host#role) installs both with C(host_bcc=true)
extends_documentation_fragment: [ebpf.fleet.common.reads]
notes:
  - BCC takes some seconds to compile, and 100 to 200 MB of memory while it runs.
  - Without C(/lib/modules/RELEASE/build) BCC uses C(/sys/kernel/kheaders.tar.xz) where the kernel
    has it.
  - A SIGINT to the process that has the probes (C(bpftool perf show)) ends the trace early, with
    all that it has.
  - There are no uprobes, and no programs of the types fentry and LSM.
seealso:
  - name: BCC reference guide
    description: The dialect.
    link: https://github.com/iovisor/bcc/blob/master/docs/reference_guide.md
"""

EXAMPLES = r"""
- name: A minute of openat2 calls is counted by program
  ebpf.fleet.bpf_trace:
    duration: 60
    source: |
      struct who { char comm[16]; };
      BPF_HASH(calls, struct who, u64);
      int kprobe__do_sys_openat2(void *ctx)
      {
          struct who who = {};
          bpf_get_current_comm(who.comm, sizeof(who.comm));
          calls.increment(who);
          return 0;
      }
  register: trace

- name: The most frequent are shown
  ansible.builtin.debug:
    msg: "{{ (trace.tables.calls | sort(attribute='value', reverse=true))[:10] }}"

- name: A rendered source runs, and its events are decoded
  ebpf.fleet.bpf_trace:
    source: "{{ lookup('ansible.builtin.template', 'drops.bpf.c.j2') }}"
    offsets: [sk_buff.head, sk_buff.network_header]
    decode:
      at: time
      location: symbol
      stack: stack
      reason: tracepoint skb:kfree_skb reason
    duration: 30
    max_events: 1000

- name: The kernel would take it
  ebpf.fleet.bpf_trace:
    source: "{{ lookup('ansible.builtin.file', 'opens.bpf.c') }}"
  check_mode: true
"""

RETURN = r"""
events:
  description:
    - Output to its events. Those of a ring buffer are in the order in which they were sent, those
      of a perf buffer in the order in which they were sent on each CPU.
  type: dict
  returned: success
  sample: {"events": [{"pid": 712, "comm": "cat", "path": "/etc/passwd"}]}
tables:
  description:
    - Table to its entries, each with C(key) and C(value). Numbers that a table keeps for each CPU
      are added up. Of arrays the elements that are not zero.
  type: dict
  returned: success
  sample: {"calls": [{"key": {"comm": "nginx"}, "value": 1024}]}
lost:
  description:
    - Output to the number of events that did not fit into it. Null for a ring buffer whose losses
      the program does not count.
  type: dict
  returned: success
  sample: {"events": 0}
ended_by:
  description:
    - What ended the trace, C(duration), C(max_events), C(max_bytes) or C(interrupt); C(check_mode)
      when it did not begin. After C(max_events) and C(max_bytes) the data are not complete.
  type: str
  returned: success
  sample: duration
started:
  description: When the program began to run, in UTC; null in check mode.
  type: str
  returned: success
  sample: "2026-11-21T18:30:00.123456Z"
seconds:
  description: How long it ran.
  type: float
  returned: success
load_seconds:
  description: How long compiling and verifying took.
  type: float
  returned: success
probes:
  description: Where which function ran, or in check mode would run.
  type: list
  elements: str
  returned: success
  sample: ["kprobe do_sys_openat2: kprobe__do_sys_openat2"]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.ebpf.fleet.plugins.module_utils import front
from ansible_collections.ebpf.fleet.plugins.module_utils.resource.errors import (
    Failure,
    from_os_error,
    require_root,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.trace import request, tracer

PROBE = {
    "function": {"type": "str", "required": True},
    **{name: {"type": "str"} for name in request.PROBES},
}
ARGUMENTS = {
    "source": {"type": "str", "required": True},
    "duration": {"type": "float", "default": 10},
    "max_events": {"type": "int", "default": 10000},
    "max_bytes": {"type": "int", "default": 4 << 20},
    "probes": {"type": "list", "elements": "dict", "options": PROBE},
    "cflags": {"type": "list", "elements": "str"},
    "offsets": {"type": "list", "elements": "str"},
    "decode": {"type": "dict"},
    "tables": {"type": "list", "elements": "str"},
    "perf_pages": {"type": "int", "default": 64},
    "load_timeout": {"type": "float", "default": 600},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        front.require_text(module.params)
        require_root()
        found = tracer.trace(request.of(module.params), check=module.check_mode)
    except Failure as failure:
        module.fail_json(msg=str(failure), **failure.details)
    except OSError as error:
        unforeseen = from_os_error(error, str(error.filename or "trace"))
        module.fail_json(msg=str(unforeseen), **unforeseen.details)
    for output, count in sorted(found["lost"].items()):
        if count:
            module.warn(f"{count} events of {output} were lost; raise perf_pages, or send fewer")
        elif count is None:
            module.warn(
                f"nobody counts the events that {output} loses: count them in a BPF_ARRAY named "
                f"{output}_lost"
            )
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
