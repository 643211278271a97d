// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* The programs of a small stack: each lets everything through and counts what
 * it saw, by its version. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

enum hook {
	HOOK_XDP,
	HOOK_TC_INGRESS,
	HOOK_TC_EGRESS,
	HOOK_CGROUP,
	HOOKS,
};

#define VERSIONS 4

const volatile __u32 version = 1;

/* Packets by hook and version. Kept by every release; written by all programs.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HOOKS *VERSIONS);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* What a release declares. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} policy SEC(".maps");

static __always_inline void count(enum hook hook)
{
	__u32 index = hook * VERSIONS + (version & (VERSIONS - 1));
	__u64 *counter = bpf_map_lookup_elem(&seen, &index);
	__u32 any = version;

	if (counter)
		__sync_fetch_and_add(counter, 1);
	bpf_map_lookup_elem(&policy, &any);
}

SEC("xdp")
int edge_xdp(struct xdp_md *ctx)
{
	count(HOOK_XDP);
	return XDP_PASS;
}

SEC("tc")
int edge_in(struct __sk_buff *skb)
{
	count(HOOK_TC_INGRESS);
	return TC_ACT_UNSPEC;
}

SEC("tc")
int edge_out(struct __sk_buff *skb)
{
	count(HOOK_TC_EGRESS);
	return TC_ACT_UNSPEC;
}

SEC("cgroup_skb/egress")
int edge_group(struct __sk_buff *skb)
{
	count(HOOK_CGROUP);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
