// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Reads the packet without looking where it ends. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int rejected(struct xdp_md *ctx)
{
	unsigned char *packet = (void *)(long)ctx->data;

	return packet[100] ? XDP_PASS : XDP_DROP;
}
