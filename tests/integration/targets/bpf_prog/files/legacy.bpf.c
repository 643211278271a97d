// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Maps as libbpf took them before 1.0. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	unsigned int type, key_size, value_size, max_entries, flags;
} old SEC("maps") = {BPF_MAP_TYPE_HASH, 4, 8, 16, 0};

SEC("xdp")
int first(struct xdp_md *ctx)
{
	unsigned int key = 1;

	return bpf_map_lookup_elem(&old, &key) ? XDP_PASS : XDP_DROP;
}
