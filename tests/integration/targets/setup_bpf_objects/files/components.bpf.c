// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that say themselves how they want to be called beside others. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/* What XDP_RUN_CONFIG of libxdp's xdp_helpers.h makes. */
struct {
	__uint(priority, 20);
	__uint(XDP_PASS, 1);
	__uint(XDP_DROP, 1);
} _xdp_drop_and_go_on SEC(".xdp_run_config");

SEC("xdp")
int xdp_drop_and_go_on(struct xdp_md *ctx)
{
	return XDP_DROP;
}

/* The kernel wants to know of a function that moves the packet's beginning. */
SEC("xdp")
int xdp_change(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_head(ctx, 0) ? XDP_ABORTED : XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
