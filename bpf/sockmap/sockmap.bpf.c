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
 *   - each direction is decided by its first message. A direction that has
 *     sent a byte through TCP never redirects one afterwards, because a reader
 *     takes redirected bytes before those in the TCP queue;
 *   - every failure means TCP; the verdict is always SK_PASS.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "kernel.h"
#include "maps.h"
#include "receiver.h"
#include "retire.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define E2BIG 7

/* Bytes that may wait in the receiver's queue before the sender goes to TCP. */
const volatile __u32 backlog_limit = 2 * 1024 * 1024;
/* The receiver's queue is looked at after so many messages or bytes. */
const volatile __u32 check_messages = 64;
const volatile __u32 check_bytes = 128 * 1024;
/*
 * A stream is so many messages with no answer, smaller than this on average,
 * sent faster than that: TCP gathers them, redirection wakes the reader for
 * each.
 */
const volatile __u32 stream_messages = 256;
const volatile __u32 stream_message_bytes = 8 * 1024;
const volatile __u32 stream_message_ns = 50 * 1000;
/* Bytes through TCP after which a direction is not expected back. */
const volatile __u32 return_bytes = 8 * 1024 * 1024;
/* Messages, with about 1 KiB of kernel memory each, that may wait unread. */
const volatile __u32 backlog_messages = 2048;

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

static __always_inline int insert(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				  struct tcp_sock *tcp)
{
	struct sequence_pair own = {
		.sent = ops->snd_nxt,
		.received = ops->rcv_nxt,
	};
	struct whereabouts here = {
		.sk = (__u64)tcp,
		.cookie = bpf_get_socket_cookie(ops),
		.net = (__u64)BPF_CORE_READ((struct sock *)tcp,
					    __sk_common.skc_net.net),
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
	here.shared = (__u64)&direction->shared;
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

/* The other end, known once it has been established too. */
static __always_inline int find_peer(struct direction *direction)
{
	struct whereabouts *here, *there;

	here = bpf_map_lookup_elem(&peers, &direction->own);
	there = bpf_map_lookup_elem(&peers, &direction->peer);
	if (!there)
		return REASON_NO_PEER;
	direction->peer_sk = there->sk;
	direction->peer_cookie = there->cookie;
	direction->peer_shared = there->shared;
	direction->crosses = here && here->net != there->net;
	return REASON_NONE;
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
	void *tcp;
	int out;

	if (!count || !now || !sk)
		return;
	direction = bpf_sk_storage_get(&directions, sk, NULL, 0);
	if (!direction || !wants_out(direction))
		return;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	out = retire_step(count, direction, (__u64)tcp);
	if (out < 0)
		bpf_sock_ops_cb_flags_set(ops,
					  ops->bpf_sock_ops_cb_flags &
						  ~BPF_SOCK_OPS_RTT_CB_FLAG);
	else if (out && now->events && READ_CONNECTION(ops, &connection))
		report(count, &connection, bpf_get_socket_cookie(ops),
		       EVENT_RETIRED, REASON_NONE);
}

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
	case BPF_SOCK_OPS_RTT_CB:
		round_trip(ops);
		break;
	}
	return 1;
}

/* Look at the receiver's queue: reason to go to TCP, or none. */
static __always_inline int check_receiver(struct direction *direction)
{
	__u64 psock, waiting, now;

	direction->unchecked_messages = 0;
	direction->unchecked_bytes = 0;
	psock = psock_of(direction->peer_sk);
	if (queue_is_empty(psock)) {
		direction->queued_messages = 0;
		direction->queued_bytes = 0;
	} else {
		/*
		 * Kernels before 6.1.140 or so do not charge redirected bytes
		 * to the receiver; then all since the queue was last seen
		 * empty may be waiting.
		 */
		waiting = receive_memory(direction->peer_sk);
		if (!waiting && !queue_is_empty(psock))
			waiting = direction->queued_bytes;
		if (waiting > backlog_limit ||
		    direction->queued_messages > backlog_messages)
			return REASON_BACKLOG;
	}
	if (direction->crosses || direction->streak_messages < stream_messages)
		return REASON_NONE;
	now = bpf_ktime_get_ns();
	if (direction->streak_started &&
	    direction->streak_bytes <
		    (__u64)direction->streak_messages * stream_message_bytes &&
	    now - direction->streak_started <
		    (__u64)direction->streak_messages * stream_message_ns)
		return REASON_ONE_WAY;
	direction->streak_started = now;
	direction->streak_messages = 0;
	direction->streak_bytes = 0;
	return REASON_NONE;
}

/* Account for a message; reason to go to TCP from it on, or none. */
static __always_inline int follow_stream(struct direction *direction,
					 const struct shared *peer, __u32 size)
{
	if (peer->messages != direction->streak_peer_messages) {
		direction->streak_peer_messages = peer->messages;
		direction->streak_started = 0;
		direction->streak_messages = 0;
		direction->streak_bytes = 0;
	}
	direction->streak_messages++;
	direction->streak_bytes += size;
	direction->queued_messages++;
	direction->queued_bytes += size;
	direction->unchecked_messages++;
	direction->unchecked_bytes += size;
	/*
	 * Requests and answers in step can make every check fall between the
	 * two messages of an answer, where the queue is never empty: before
	 * such a count matters, look at every message.
	 */
	if (direction->unchecked_messages < check_messages &&
	    direction->unchecked_bytes < check_bytes &&
	    direction->queued_messages < backlog_messages / 2 &&
	    direction->queued_bytes < backlog_limit / 2)
		return REASON_NONE;
	return check_receiver(direction);
}

/* TCP for want of something that may come yet. */
static __always_inline int may_return(const struct direction *direction)
{
	return direction->reason == REASON_NO_PEER ||
	       direction->reason == REASON_BACKLOG;
}

/*
 * Going back from TCP to redirecting reorders, but for one case: the other
 * end's application has taken every byte that was ever given to TCP. Sequence
 * numbers count those bytes alone, and both ends number them alike.
 */
static __always_inline int returns(const struct direction *direction,
				   const struct tcp_sock *tcp)
{
	return !direction->shared.retiring &&
	       has_taken_all(direction->peer_sk, tcp->write_seq) &&
	       is_still(direction->peer_sk, direction->peer_cookie);
}

/* Redirect the message: none, or the reason why it goes to TCP. */
static __always_inline int redirect(struct sk_msg_md *msg, struct bpf_sock *sk,
				    struct direction *direction,
				    const struct tcp_sock *tcp,
				    const struct settings *now)
{
	struct shared peer = {};
	int wanted, reason;

	if (direction->verdict == VERDICT_TCP && !may_return(direction))
		return direction->reason;
	if (now->draining)
		return REASON_DRAINING;
	/* After shutdown() only TCP knows that writing is an error. */
	if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT)
		return REASON_CLOSING;
	if (tcp->inet_conn.icsk_ulp_ops)
		return REASON_KTLS;
	if (!direction->peer_sk && find_peer(direction))
		return REASON_NO_PEER;
	if (direction->verdict != VERDICT_REDIRECT &&
	    has_ulp(direction->peer_sk))
		return REASON_KTLS;
	wanted = direction->verdict != VERDICT_TCP || returns(direction, tcp);
	/* Say so before looking at the mark: retire.h step 2 relies on it. */
	if (wanted)
		direction->shared.redirected = 1;
	if (bpf_probe_read_kernel(&peer, sizeof(peer),
				  (void *)direction->peer_shared) ||
	    peer.retiring)
		return REASON_PEER_GONE;
	if (!wanted)
		return direction->reason;
	reason = follow_stream(direction, &peer, msg->size);
	if (reason)
		return reason;
	if (bpf_msg_redirect_hash(msg, &sockets, &direction->peer,
				  BPF_F_INGRESS) != SK_PASS)
		return direction->verdict ? REASON_PEER_GONE : REASON_NO_PEER;
	return REASON_NONE;
}

static __always_inline void count_to_tcp(struct counters *count, int reason)
{
	switch (reason) {
	case REASON_NO_PEER:
		count->no_peer++;
		break;
	case REASON_PEER_GONE:
		count->peer_gone++;
		break;
	case REASON_BACKLOG:
		count->backlog++;
		break;
	case REASON_ONE_WAY:
		count->one_way++;
		break;
	case REASON_KTLS:
		count->ktls++;
		break;
	case REASON_CLOSING:
		count->closing++;
		break;
	default:
		count->drained++;
		break;
	}
}

static __always_inline void report_direction(struct sk_msg_md *msg,
					     struct counters *count,
					     const struct direction *direction,
					     int kind, int reason)
{
	struct connection connection = {};
	struct whereabouts *here;

	here = bpf_map_lookup_elem(&peers, &direction->own);
	if (READ_CONNECTION(msg, &connection))
		report(count, &connection, here ? here->cookie : 0, kind,
		       reason);
}

/* This message goes to TCP, and with it the direction. */
static __always_inline void to_tcp(struct sk_msg_md *msg,
				   struct direction *direction, int reason,
				   struct counters *count,
				   const struct settings *now)
{
	count->tcp_messages++;
	count->tcp_bytes += msg->size;
	direction->tcp_bytes += msg->size;
	if (direction->verdict == VERDICT_TCP && direction->reason == reason)
		return;
	direction->verdict = VERDICT_TCP;
	direction->reason = reason;
	direction->tcp_bytes = msg->size;
	count_to_tcp(count, reason);
	if (now->events)
		report_direction(msg, count, direction, EVENT_TO_TCP, reason);
}

/* This message was redirected, and the next ones will be. */
static __always_inline void redirected(struct sk_msg_md *msg,
				       struct direction *direction,
				       struct counters *count,
				       const struct settings *now)
{
	int back = direction->verdict == VERDICT_TCP;

	count->redirected_messages++;
	count->redirected_bytes += msg->size;
	if (direction->verdict == VERDICT_REDIRECT)
		return;
	direction->verdict = VERDICT_REDIRECT;
	if (back)
		count->returned++;
	else
		count->paired++;
	if (now->events)
		report_direction(msg, count, direction,
				 back ? EVENT_RETURNED : EVENT_PAIRED,
				 REASON_NONE);
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
	if (!direction->shared.silent && !may_return(direction) &&
	    is_only_call(psock_of((__u64)tcp)))
		direction->shared.silent = 1;
	return SK_PASS;
}
