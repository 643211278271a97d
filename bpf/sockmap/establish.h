/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sockops: who is admitted, and who leaves again. */
#ifndef EBPF_FLEET_SOCKMAP_ESTABLISH_H
#define EBPF_FLEET_SOCKMAP_ESTABLISH_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "kernel.h"
#include "limits.h"
#include "maps.h"
#include "receiver.h"
#include "retire.h"

#define E2BIG 7

/*
 * Connections whose first bytes may be under way before both ends are in the
 * map, or whose bytes are not the application's.
 */
static __always_inline int unsuitable(struct bpf_sock_ops *ops,
				      struct tcp_sock *tcp, int active)
{
	if (bpf_core_field_exists(tcp->is_mptcp) && tcp->is_mptcp)
		return REASON_MPTCP;
	if (ops->data_segs_out || tcp->fastopen_rsk)
		return REASON_FAST_OPEN;
	/*
	 * A request socket remembers when its SYN-ACK left, and the handshake
	 * measures a round trip from it; a cookie remembers nothing.
	 */
	if (!active && !ops->srtt_us)
		return REASON_SYN_COOKIE;
	return REASON_NONE;
}

/*
 * A kernel pointer as a number. Before 5.11 the verifier lets no helper read a
 * pointer from the stack; through a map value it becomes a number.
 */
static __always_inline __u64 as_number(__u64 *through, const void *pointer)
{
	*(volatile __u64 *)through = (__u64)pointer;
	return *(volatile __u64 *)through;
}

static __always_inline int insert(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				  struct tcp_sock *tcp)
{
	struct sequence_pair own = {
		.sent = ops->snd_nxt,
		.received = ops->rcv_nxt,
	};
	struct whereabouts here = {
		.cookie = bpf_get_socket_cookie(ops),
	};
	struct direction *direction;
	long error;

	/* The key of a socket connected to itself names no other end. */
	if (own.sent == own.received)
		return REASON_NOT_INSERTED;
	direction = bpf_sk_storage_get(&directions, sk, NULL,
				       BPF_SK_STORAGE_GET_F_CREATE);
	if (!direction)
		return REASON_NOT_INSERTED;
	direction->own = own;
	direction->peer.sent = own.received;
	direction->peer.received = own.sent;
	here.shared = as_number(&direction->sk, &direction->shared);
	here.sk = as_number(&direction->sk, tcp);
	here.net = net_of(here.sk);
	if (bpf_map_update_elem(&peers, &own, &here, BPF_ANY))
		return REASON_NOT_INSERTED;
	error = bpf_sock_hash_update(ops, &sockets, &own, BPF_NOEXIST);
	if (error == -E2BIG)
		return REASON_MAP_FULL;
	return error ? REASON_NOT_INSERTED : REASON_NONE;
}

static __always_inline void count_left_on_tcp(struct counters *count,
					      int reason)
{
	switch (reason) {
	case REASON_NOT_POLICY:
		count->not_policy++;
		break;
	case REASON_FAST_OPEN:
		count->fast_open++;
		break;
	case REASON_SYN_COOKIE:
		count->syn_cookie++;
		break;
	case REASON_MPTCP:
		count->mptcp++;
		break;
	case REASON_DRAINING:
		count->draining++;
		break;
	case REASON_MAP_FULL:
		count->map_full++;
		break;
	default:
		count->not_inserted++;
		break;
	}
}

static __always_inline int admit(struct bpf_sock_ops *ops,
				 const struct settings *now,
				 const struct connection *connection,
				 int active)
{
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *tcp;
	int reason;

	if (now->draining)
		return REASON_DRAINING;
	if (!policy_allows(connection, active))
		return REASON_NOT_POLICY;
	if (!sk)
		return REASON_NOT_INSERTED;
	tcp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return REASON_NOT_INSERTED;
	reason = unsuitable(ops, tcp, active);
	return reason ? reason : insert(ops, sk, tcp);
}

static __always_inline void established(struct bpf_sock_ops *ops, int active)
{
	struct counters *count = counters_here();
	struct settings *now = settings_now();
	struct connection connection = {};
	int reason;

	if (!count || !now || !READ_CONNECTION(ops, &connection))
		return;
	count->established++;
	reason = admit(ops, now, &connection, active);
	if (reason == REASON_NONE) {
		count->admitted++;
		bpf_sock_ops_cb_flags_set(ops,
					  ops->bpf_sock_ops_cb_flags |
						  BPF_SOCK_OPS_RTT_CB_FLAG);
	} else {
		count_left_on_tcp(count, reason);
	}
	if (now->events)
		report(count, &connection, bpf_get_socket_cookie(ops),
		       reason ? EVENT_LEFT_ON_TCP : EVENT_ADMITTED, reason);
}

/*
 * Is there nothing to gain from staying in the map? A direction that may go
 * back to redirecting stays until it has sent so much that it looks unlikely.
 */
static __always_inline int wants_out(struct direction *direction)
{
	if (direction->verdict != VERDICT_TCP)
		return 0;
	if (direction->shared.retiring)
		return 1;
	switch (direction->reason) {
	case REASON_NO_PEER:
		/* Data has been acknowledged, so the other end is established
		 */
		if (!direction->peer_sk && find_peer(direction))
			return 1;
		return direction->tcp_bytes > return_bytes;
	case REASON_BACKLOG:
		return direction->tcp_bytes > return_bytes ||
		       !is_nonblocking(direction->peer_sk);
	default:
		return 1;
	}
}

/* A round trip was measured: bytes of this socket went through TCP. */
static __always_inline void round_trip(struct bpf_sock_ops *ops)
{
	struct counters *count = counters_here();
	struct settings *now = settings_now();
	struct connection connection = {};
	struct direction *direction;
	struct bpf_sock *sk = ops->sk;
	int out;

	if (!count || !now || !sk)
		return;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (!direction || !wants_out(direction))
		return;
	out = retire_step(count, direction);
	if (out < 0)
		bpf_sock_ops_cb_flags_set(ops,
					  ops->bpf_sock_ops_cb_flags &
						  ~BPF_SOCK_OPS_RTT_CB_FLAG);
	else if (out && now->events && READ_CONNECTION(ops, &connection))
		report(count, &connection, bpf_get_socket_cookie(ops),
		       EVENT_RETIRED, REASON_NONE);
}

#endif
