/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sk_msg: which way a message goes. */
#ifndef EBPF_FLEET_SOCKMAP_REDIRECT_H
#define EBPF_FLEET_SOCKMAP_REDIRECT_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "connection.h"
#include "kernel.h"
#include "limits.h"
#include "maps.h"
#include "receiver.h"

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

/*
 * May the direction begin by redirecting? send() on a socket that was still
 * connecting waited for it inside plain TCP: the first message seen here need
 * not be the first.
 */
static __always_inline int is_first(const struct direction *direction,
				    const struct tcp_sock *tcp)
{
	return tcp->write_seq == direction->own.sent &&
	       !has_early_reader(direction->peer_sk,
				 psock_of(direction->peer_sk));
}

/* Redirect the message: none, or the reason why it goes to TCP. */
static __always_inline int redirect(struct sk_msg_md *msg, struct bpf_sock *sk,
				    struct direction *direction,
				    const struct tcp_sock *tcp,
				    const struct settings *now)
{
	struct shared peer = {};
	int wanted, reason;

	if (direction->verdict == VERDICT_TCP)
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
	wanted = direction->verdict == VERDICT_REDIRECT ||
		 is_first(direction, tcp);
	/* Say so before looking at the mark: retire.h step 2 relies on it. */
	if (wanted)
		direction->shared.redirected = 1;
	if (bpf_probe_read_kernel(&peer, sizeof(peer),
				  (void *)direction->peer_shared) ||
	    peer.retiring)
		return REASON_PEER_GONE;
	if (!wanted)
		return REASON_NO_PEER;
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

	if (READ_CONNECTION(msg, &connection))
		report(count, &connection, direction->cookie, kind, reason);
}

/* This message goes to TCP, and with it the direction. */
static __always_inline void to_tcp(struct sk_msg_md *msg,
				   struct direction *direction, int reason,
				   struct counters *count,
				   const struct settings *now)
{
	count->tcp_messages++;
	count->tcp_bytes += msg->size;
	if (direction->verdict == VERDICT_TCP)
		return;
	direction->verdict = VERDICT_TCP;
	direction->reason = reason;
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
	count->redirected_messages++;
	count->redirected_bytes += msg->size;
	if (direction->verdict == VERDICT_REDIRECT)
		return;
	direction->verdict = VERDICT_REDIRECT;
	count->paired++;
	if (now->events)
		report_direction(msg, count, direction, EVENT_PAIRED,
				 REASON_NONE);
}

#endif
