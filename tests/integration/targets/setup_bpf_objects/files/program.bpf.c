// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What bpf_prog is tested with: constants, a shared map, shared globals. */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile __u32 limit = 3;
const volatile _Bool strict;
const volatile char site[8] = "lab";
__u64 total;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} things SEC(".maps");

SEC("xdp")
int first(struct xdp_md *ctx)
{
	__u32 key = limit;
	__u64 value = strict;

	bpf_map_update_elem(&things, &key, &value, BPF_ANY);
	total++;
	return XDP_PASS;
}

SEC("xdp")
int second(struct xdp_md *ctx)
{
	total++;
	return site[0] == 'l' ? XDP_PASS : XDP_DROP;
}
