// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* A socket map, what fills it, and message programs that count but redirect
 * nothing. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

const volatile __u32 version = 1;

/* Written by insert with accepted sockets, under their port. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

/* The same, but the kernel does not show what is in it. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} opaque SEC(".maps");

/* Messages by the version of the program that saw them: written by count, read
 * by the test. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} messages SEC(".maps");

SEC("sk_msg")
int count(struct sk_msg_md *msg)
{
	__u32 key = version & 7;
	__u64 *seen = bpf_map_lookup_elem(&messages, &key);

	if (seen)
		__sync_fetch_and_add(seen, 1);
	return SK_PASS;
}

SEC("sk_skb/stream_verdict")
int verdict(struct __sk_buff *skb)
{
	return SK_PASS;
}

SEC("sockops")
int insert(struct bpf_sock_ops *ctx)
{
	__u32 key = ctx->remote_port;

	if (ctx->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_hash_update(ctx, &sockets, &key, BPF_ANY);
	return 1;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
