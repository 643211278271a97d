/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sockops: who is admitted, and who leaves again. */
#ifndef EBPF_FLEET_SOCKMAP_ESTABLISH_H
#define EBPF_FLEET_SOCKMAP_ESTABLISH_H

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "handover.h"
#include "kernel.h"
#include "limits.h"
#include "maps.h"
#include "receiver.h"
#include "retire.h"

#define E2BIG 7
#define CALLBACKS                                                              \
	(BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG |               \
	 BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)
/* How long a half-close waits for its mark to be seen. */
#define BRIEF_SETTLE_NS 2000
#define MAX_CLOCK_READS 256
/* tcp_sock.srtt_us is in eighths of a microsecond. */
#define SRTT_MILLISECOND 8000

static __always_inline void set_callbacks(struct bpf_sock_ops *ops, int flags)
{
	bpf_sock_ops_cb_flags_set(ops, flags);
}

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
	 * measures a round trip from it. A cookie remembers nothing: there is
	 * no round trip, or one from time stamps, which count milliseconds. (So
	 * has a SYN-ACK that was sent twice; one handshake in a thousand is
	 * taken for it and stays on TCP.)
	 */
	if (!active && ops->srtt_us % SRTT_MILLISECOND == 0)
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

/*
 * connect(AF_UNSPEC) leaves a socket in the map, with what it had not read. Its
 * next connection, admitted or not, is another one.
 */
static __always_inline void forget_former(struct bpf_sock *sk)
{
	struct direction *direction;
	struct sequence_pair former;

	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (!direction)
		return;
	former = direction->own;
	bpf_map_delete_elem(&sockets, &former);
	bpf_map_delete_elem(&peers, &former);
	bpf_sk_storage_delete(&directions, sk);
}

/* Make the socket known to its other end, then a target for it. */
static __always_inline int publish(struct bpf_sock_ops *ops,
				   struct direction *direction,
				   struct tcp_sock *tcp)
{
	struct sequence_pair own = direction->own;
	struct whereabouts here = {
		.cookie = bpf_get_socket_cookie(ops),
	};
	long error;

	here.shared = as_number(&direction->sk, &direction->shared);
	here.sk = as_number(&direction->sk, tcp);
	here.net = net_of(here.sk);
	direction->net = here.net;
	direction->cookie = here.cookie;
	if (bpf_map_update_elem(&peers, &own, &here, BPF_NOEXIST))
		return REASON_NOT_INSERTED;
	error = bpf_sock_hash_update(ops, &sockets, &own, BPF_NOEXIST);
	if (!error)
		return REASON_NONE;
	bpf_map_delete_elem(&peers, &own);
	return error == -E2BIG ? REASON_MAP_FULL : REASON_NOT_INSERTED;
}

static __always_inline int insert(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				  struct tcp_sock *tcp)
{
	struct sequence_pair own = {
		.sent = ops->snd_nxt,
		.received = ops->rcv_nxt,
	};
	struct direction *direction;
	int reason;

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
	reason = publish(ops, direction, tcp);
	if (reason)
		bpf_sk_storage_delete(&directions, sk);
	return reason;
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
	case REASON_FIONREAD:
		count->fionread++;
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
	if (!without_fionread && !fionread_counts_redirected())
		return REASON_FIONREAD;
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
	if (ops->sk)
		forget_former(ops->sk);
	reason = admit(ops, now, &connection, active);
	if (reason == REASON_NONE) {
		count->admitted++;
		set_callbacks(ops, ops->bpf_sock_ops_cb_flags | CALLBACKS);
	} else {
		count_left_on_tcp(count, reason);
	}
	if (now->events)
		report(count, &connection, bpf_get_socket_cookie(ops),
		       reason ? EVENT_LEFT_ON_TCP : EVENT_ADMITTED, reason);
}

/* A direction on TCP gains nothing from the map. */
static __always_inline int wants_out(struct direction *direction)
{
	if (direction->verdict != VERDICT_TCP)
		return 0;
	/* Data has been acknowledged: the other end is established. */
	if (direction->reason == REASON_NO_PEER && !direction->peer_sk)
		find_peer(direction);
	return 1;
}

/* A segment of this socket is about to leave. */
static __always_inline void segment_leaves(struct bpf_sock_ops *ops)
{
	struct counters *count = counters_here();
	struct bpf_sock *sk = ops->sk;
	struct direction *direction;

	if (!count || !sk)
		return;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (direction && hand_over(ops, sk, count, direction))
		set_callbacks(ops, ops->bpf_sock_ops_cb_flags &
					   ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
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
		set_callbacks(ops, ops->bpf_sock_ops_cb_flags &
					   ~BPF_SOCK_OPS_RTT_CB_FLAG);
	else if (out && now->events && READ_CONNECTION(ops, &connection))
		report(count, &connection, bpf_get_socket_cookie(ops),
		       EVENT_RETIRED, REASON_NONE);
}

/*
 * shutdown() of the sending side. A reader that sleeps in a sockmap socket
 * returns EAGAIN for any wakeup without data, and the ACK of the FIN is one: a
 * request, a half-close and a blocking read for the answer would fail. So out
 * of the map, now, if it can be. If the other end has not yet found this one,
 * it never will after this, and nothing can be in the queue. Else as in
 * retire.h, but the mark has only microseconds to be seen, which is a thousand
 * times what a store takes.
 */
static __always_inline void half_closed(struct bpf_sock_ops *ops)
{
	struct counters *count = counters_here();
	struct bpf_sock *sk = ops->sk;
	struct direction *direction;
	struct sequence_pair own;
	__u64 psock, start;

	if (!count || !sk)
		return;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (!direction)
		return;
	psock = psock_of(direction->sk);
	/* close() has taken it out before */
	if (!psock || has_ulp(direction->sk))
		return;
	own = direction->own;
	if (!bpf_map_delete_elem(&peers, &own)) {
		take_out(count, &own);
		return;
	}
	if (direction->shared.retiring || is_nonblocking(direction->sk))
		return;
	direction->shared.retiring = 1;
	start = bpf_ktime_get_ns();
	for (int i = 0; i < MAX_CLOCK_READS; i++)
		if (bpf_ktime_get_ns() - start > BRIEF_SETTLE_NS)
			break;
	if (!peer_is_silent(direction) || !queue_is_empty(psock) ||
	    !take_out(count, &own))
		direction->shared.retiring = 0;
}

#endif
