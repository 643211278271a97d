// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Fills the headroom with 0xFF, then hands the packet to the program under
 * test: what it takes for a header and did not write itself shows in the bytes
 * that come out.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

/* XDP_PACKET_HEADROOM less the struct xdp_frame that adjust_head keeps free. */
#define HEADROOM 208

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} tested SEC(".maps");

SEC("xdp")
int poison(struct xdp_md *ctx)
{
	char *data;
	int i;

	if (bpf_xdp_adjust_head(ctx, -HEADROOM))
		return XDP_ABORTED;
	data = (char *)(long)ctx->data;
	if (data + HEADROOM > (char *)(long)ctx->data_end)
		return XDP_ABORTED;
	for (i = 0; i < HEADROOM; i++)
		data[i] = 0xff;
	if (bpf_xdp_adjust_head(ctx, HEADROOM))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &tested, 0);
	return XDP_ABORTED;
}

/* An interface must have a program before packets may claim to be from it. */
SEC("xdp")
int admit(struct xdp_md *ctx)
{
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
