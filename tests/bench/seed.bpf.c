// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The published accelerators in their common form, as a yardstick of speed
 * only: a SOCKHASH keyed by the 4-tuple, every message redirected if the other
 * end is in the map. It reorders bytes, mixes namespaces and has no bound.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct tuple {
	__be32 from_address;
	__be32 to_address;
	__u32 from_port; /* host order */
	__u32 to_port;
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct tuple);
	__type(value, __u64);
} sockets SEC(".maps");

SEC("sockops")
int sockmap_establish(struct bpf_sock_ops *ops)
{
	struct tuple key = {
		.from_address = ops->local_ip4,
		.to_address = ops->remote_ip4,
		.from_port = ops->local_port,
		.to_port = bpf_ntohl(ops->remote_port),
	};

	if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB ||
	    ops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
		bpf_sock_hash_update(ops, &sockets, &key, BPF_ANY);
	return 1;
}

SEC("sk_msg")
int sockmap_redirect(struct sk_msg_md *msg)
{
	struct tuple key = {
		.from_address = msg->remote_ip4,
		.to_address = msg->local_ip4,
		.from_port = bpf_ntohl(msg->remote_port),
		.to_port = msg->local_port,
	};

	bpf_msg_redirect_hash(msg, &sockets, &key, BPF_F_INGRESS);
	return SK_PASS;
}
