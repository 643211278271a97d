// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Programs of every type that takes packets, and one of a type that does not.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

/* The verdict is the last byte of the destination's link-layer address. */
SEC("xdp")
int verdict_xdp(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	return ethernet->h_dest[5];
}

/* Makes room for 4 bytes and writes 2: what was there before shows. */
SEC("xdp")
int verdict_grow(struct xdp_md *ctx)
{
	__u8 *data;

	if (bpf_xdp_adjust_head(ctx, -4))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data;
	if (data + 4 > (__u8 *)(long)ctx->data_end)
		return XDP_ABORTED;
	data[0] = 0x12;
	data[1] = 0x34;
	return XDP_TX;
}

/* The same kind of packet in several buffers is welcome to this one. */
SEC("xdp.frags")
int verdict_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("tc")
int verdict_tc(struct __sk_buff *skb)
{
	__u8 source = 0x5a;

	if (skb->len > 60)
		return TC_ACT_SHOT;
	bpf_skb_store_bytes(skb, ETH_ALEN, &source, 1, 0);
	return TC_ACT_UNSPEC;
}

SEC("cgroup_skb/egress")
int verdict_cgroup(struct __sk_buff *skb)
{
	return skb->len <= 60;
}

SEC("socket")
int verdict_socket(struct __sk_buff *skb)
{
	return skb->len > 60 ? 0 : 40;
}

SEC("sockops")
int verdict_sockops(struct bpf_sock_ops *ops)
{
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
