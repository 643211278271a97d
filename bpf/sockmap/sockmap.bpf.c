// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Sockmap accelerator: TCP between two sockets of one host skips the stack.
 *
 * sockmap_establish (sockops) puts both ends of an admitted connection into a
 * SOCKHASH; sockmap_redirect (sk_msg) hands each message straight to the other
 * end. docs/sockmap.md explains why it is correct; the short form is
 *
 *   - the key is the pair of initial sequence numbers, which only the true
 *     other end has;
 *   - each direction is decided by its first message. One that has sent a byte
 *     through TCP never redirects one afterwards, because a reader takes
 *     redirected bytes before those in the TCP queue; its ends leave the map;
 *   - every failure means TCP; the verdict is always SK_PASS.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "establish.h"
#include "maps.h"
#include "redirect.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("sockops")
int sockmap_establish(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		established(ops, 1);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		established(ops, 0);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		segment_leaves(ops);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		round_trip(ops);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_FIN_WAIT1)
			half_closed(ops);
		break;
	}
	return 1;
}

SEC("sk_msg")
int sockmap_redirect(struct sk_msg_md *msg)
{
	struct counters *count = counters_here();
	struct settings *now = settings_now();
	struct bpf_sock *sk = msg->sk;
	struct direction *direction;
	struct tcp_sock *tcp;
	int reason;

	if (!count || !now || !sk)
		return SK_PASS;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	tcp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (!direction || !tcp)
		return SK_PASS;
	direction->shared.messages++;
	reason = redirect(msg, sk, direction, tcp, now);
	if (!reason) {
		redirected(msg, direction, count, now);
		return SK_PASS;
	}
	to_tcp(msg, direction, reason, count, now);
	if (!direction->shared.silent && is_only_call(psock_of(direction->sk)))
		direction->shared.silent = 1;
	return SK_PASS;
}
