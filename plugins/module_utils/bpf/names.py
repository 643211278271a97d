# Copyright (c) 2026, the ebpf.fleet authors
# Simplified BSD License (see LICENSES/BSD-2-Clause.txt or https://opensource.org/licenses/BSD-2-Clause)
# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's numbers and the names that bpftool and the documentation use for them.

Each tuple is indexed by the number of include/uapi/linux/bpf.h; ``name_of`` and ``number_of`` look
up either way. A number newer than the table keeps working as ``type_<n>``.
"""

from __future__ import annotations

# enum bpf_prog_type
PROG_TYPES = (
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
)

# What older tools and section names say for the same types.
PROG_TYPE_ALIASES = {
    "sockops": "sock_ops",
    "classifier": "sched_cls",
    "tc": "sched_cls",
    "tcx": "sched_cls",
    "action": "sched_act",
    "socket": "socket_filter",
}

# enum bpf_map_type
MAP_TYPES = (
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
)

# enum bpf_attach_type
ATTACH_TYPES = (
    "cgroup_inet_ingress",
    "cgroup_inet_egress",
    "cgroup_inet_sock_create",
    "cgroup_sock_ops",
    "sk_skb_stream_parser",
    "sk_skb_stream_verdict",
    "cgroup_device",
    "sk_msg_verdict",
    "cgroup_inet4_bind",
    "cgroup_inet6_bind",
    "cgroup_inet4_connect",
    "cgroup_inet6_connect",
    "cgroup_inet4_post_bind",
    "cgroup_inet6_post_bind",
    "cgroup_udp4_sendmsg",
    "cgroup_udp6_sendmsg",
    "lirc_mode2",
    "flow_dissector",
    "cgroup_sysctl",
    "cgroup_udp4_recvmsg",
    "cgroup_udp6_recvmsg",
    "cgroup_getsockopt",
    "cgroup_setsockopt",
    "trace_raw_tp",
    "trace_fentry",
    "trace_fexit",
    "modify_return",
    "lsm_mac",
    "trace_iter",
    "cgroup_inet4_getpeername",
    "cgroup_inet6_getpeername",
    "cgroup_inet4_getsockname",
    "cgroup_inet6_getsockname",
    "xdp_devmap",
    "cgroup_inet_sock_release",
    "xdp_cpumap",
    "sk_lookup",
    "xdp",
    "sk_skb_verdict",
    "sk_reuseport_select",
    "sk_reuseport_select_or_migrate",
    "perf_event",
    "trace_kprobe_multi",
    "lsm_cgroup",
    "struct_ops",
    "netfilter",
    "tcx_ingress",
    "tcx_egress",
    "trace_uprobe_multi",
    "cgroup_unix_connect",
    "cgroup_unix_sendmsg",
    "cgroup_unix_recvmsg",
    "cgroup_unix_getpeername",
    "cgroup_unix_getsockname",
    "netkit_primary",
    "netkit_peer",
)

# The names that bpftool takes on its command line.
ATTACH_TYPE_ALIASES = {
    "sock_ops": "cgroup_sock_ops",
    "msg_verdict": "sk_msg_verdict",
    "ingress": "cgroup_inet_ingress",
    "egress": "cgroup_inet_egress",
    "sock_create": "cgroup_inet_sock_create",
    "sock_release": "cgroup_inet_sock_release",
    "device": "cgroup_device",
    "bind4": "cgroup_inet4_bind",
    "bind6": "cgroup_inet6_bind",
    "connect4": "cgroup_inet4_connect",
    "connect6": "cgroup_inet6_connect",
    "post_bind4": "cgroup_inet4_post_bind",
    "post_bind6": "cgroup_inet6_post_bind",
    "sendmsg4": "cgroup_udp4_sendmsg",
    "sendmsg6": "cgroup_udp6_sendmsg",
    "recvmsg4": "cgroup_udp4_recvmsg",
    "recvmsg6": "cgroup_udp6_recvmsg",
    "getpeername4": "cgroup_inet4_getpeername",
    "getpeername6": "cgroup_inet6_getpeername",
    "getsockname4": "cgroup_inet4_getsockname",
    "getsockname6": "cgroup_inet6_getsockname",
    "sysctl": "cgroup_sysctl",
    "getsockopt": "cgroup_getsockopt",
    "setsockopt": "cgroup_setsockopt",
    "stream_parser": "sk_skb_stream_parser",
    "stream_verdict": "sk_skb_stream_verdict",
    "skb_verdict": "sk_skb_verdict",
}

# enum bpf_link_type
LINK_TYPES = (
    "unspec",
    "raw_tracepoint",
    "tracing",
    "cgroup",
    "iter",
    "netns",
    "xdp",
    "perf_event",
    "kprobe_multi",
    "struct_ops",
    "netfilter",
    "tcx",
    "uprobe_multi",
    "netkit",
    "sockmap",
)


def name_of(table: tuple[str, ...], number: int) -> str:
    """The name of ``number``, or ``type_<n>`` for one that is newer than the table."""
    return table[number] if 0 <= number < len(table) else f"type_{number}"


def number_of(table: tuple[str, ...], name: str, aliases: dict[str, str] | None = None) -> int:
    """The number of ``name`` (or of the alias it is). Raises KeyError with the name."""
    wanted = (aliases or {}).get(name, name)
    if wanted not in table:
        raise KeyError(name)
    return table.index(wanted)
