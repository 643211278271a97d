// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A stack: programs for two hooks, and a map that both read. Another version
 * makes other programs. */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

const volatile __u32 version = 1;

/* Written by the operator: a version that lets nothing pass. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} refused SEC(".maps");

SEC("xdp")
int admit(struct xdp_md *ctx)
{
	__u32 key = version;

	return bpf_map_lookup_elem(&refused, &key) ? XDP_DROP : XDP_PASS;
}

SEC("cgroup/skb")
int egress(struct __sk_buff *ctx)
{
	__u32 key = version;

	return !bpf_map_lookup_elem(&refused, &key);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
