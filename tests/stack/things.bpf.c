// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A program for each kind of hook. VERSION 1 and 2 load, the verifier
 * rejects 3. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#ifndef VERSION
#define VERSION 1
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u32);
} thing_numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} thing_sockets SEC(".maps");

static __always_inline int look_up(__u32 key)
{
	__u32 *found = bpf_map_lookup_elem(&thing_numbers, &key);

	return found ? *found : 0;
}

SEC("xdp")
int thing_xdp(struct xdp_md *ctx)
{
#if VERSION == 3
	return *(int *)(long)ctx->data;
#else
	return look_up(VERSION) == 4711 ? XDP_DROP : XDP_PASS;
#endif
}

SEC("tc")
int thing_tc(struct __sk_buff *skb)
{
	return look_up(VERSION) == 4711 ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

SEC("cgroup_skb/egress")
int thing_out(struct __sk_buff *skb)
{
	return look_up(VERSION) != 4711;
}

SEC("sockops")
int thing_ops(struct bpf_sock_ops *ops)
{
	return look_up(VERSION) == 4711;
}

SEC("sk_msg")
int thing_msg(struct sk_msg_md *msg)
{
	__u32 key = VERSION;

	bpf_msg_redirect_hash(msg, &thing_sockets, &key, BPF_F_INGRESS);
	return SK_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
