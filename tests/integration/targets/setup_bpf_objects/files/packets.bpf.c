// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs that let every packet pass, or none; a version is a new program. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 version = 1;

SEC("xdp")
int xdp_admit(struct xdp_md *ctx)
{
	return version ? XDP_PASS : XDP_ABORTED;
}

SEC("xdp")
int xdp_refuse(struct xdp_md *ctx)
{
	return version ? XDP_DROP : XDP_ABORTED;
}

/* What libxdp calls the program that it shares an interface with. */
SEC("xdp")
int xdp_dispatcher(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc")
int tc_admit(struct __sk_buff *skb)
{
	return version ? TC_ACT_UNSPEC : TC_ACT_SHOT;
}

SEC("tc")
int tc_refuse(struct __sk_buff *skb)
{
	return version ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
