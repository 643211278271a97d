// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Counts connections and messages by service port in one map that both
 * programs share. The section names say no program type on purpose: the
 * playbooks name it.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct activity {
	__u64 connections;
	__u64 messages;
};

/* Written by both programs, read by user space. Ports in network order. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __be16);
	__type(value, struct activity);
} connections SEC(".maps");

static __always_inline struct activity *activity_of(__be16 port)
{
	struct activity none = {};

	bpf_map_update_elem(&connections, &port, &none, BPF_NOEXIST);
	return bpf_map_lookup_elem(&connections, &port);
}

SEC("connections_established")
int count_connections(struct bpf_sock_ops *ops)
{
	struct activity *activity;

	if (ops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		return 1;
	activity = activity_of(bpf_htons(ops->local_port));
	if (activity)
		__sync_fetch_and_add(&activity->connections, 1);
	return 1;
}

SEC("messages_sent")
int count_messages(struct sk_msg_md *msg)
{
	struct activity *activity = activity_of(bpf_htons(msg->local_port));

	if (activity)
		__sync_fetch_and_add(&activity->messages, 1);
	return SK_PASS;
}
