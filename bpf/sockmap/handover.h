/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From redirecting to TCP without leaving bytes where the reader does not see
 * them. In kernels since 2026 (tcp_bpf_ioctl) FIONREAD of a socket in a sockmap
 * counts the redirected queue alone: an event loop that asks it, such as
 * nginx's, sleeps for ever on bytes in the TCP queue. So a receiver does not
 * stay in the map once it receives through TCP.
 *
 * The callback for the length of header options runs on the sender, before each
 * of its segments leaves; redirected data has none. As soon as the sender
 * has gone to TCP, no redirect of its is under way and the receiver's redirect
 * queue is empty, the receiver is taken out: mostly before the first segment.
 * What the receiver sends is plain TCP from then on, and its own callback takes
 * this end out likewise.
 *
 * A receiver with a backlog stays until a later segment finds its queue empty;
 * each segment wakes its reader. After the last one nothing would: so the
 * sender probes once a second (TCP keepalive, unless the application has its
 * own). The probe's callback takes the receiver out, and the receiver's answer
 * to it runs this callback there, which wakes the reader (SO_RCVLOWAT signals
 * what is readable).
 */
#ifndef EBPF_FLEET_SOCKMAP_HANDOVER_H
#define EBPF_FLEET_SOCKMAP_HANDOVER_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "receiver.h"
#include "retire.h"

#define SOL_SOCKET    1
#define SOL_TCP	      6
#define SO_KEEPALIVE  9
#define SO_RCVLOWAT   18
#define TCP_KEEPIDLE  4
#define TCP_KEEPINTVL 5

static __always_inline int option(struct bpf_sock_ops *ops, int level, int name)
{
	int value = 0;

	return bpf_getsockopt(ops, level, name, &value, sizeof(value)) ? 0
								       : value;
}

static __always_inline void set_option(struct bpf_sock_ops *ops, int level,
				       int name, int value)
{
	bpf_setsockopt(ops, level, name, &value, sizeof(value));
}

/* Wake a reader that was told by FIONREAD that nothing is there. */
static __always_inline void wake_reader(struct bpf_sock_ops *ops,
					struct bpf_sock *sk,
					struct direction *direction)
{
	struct tcp_sock *tcp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);

	if (!tcp || !has_unread_tcp(tcp))
		return;
	direction->woken = 1;
	set_option(ops, SOL_SOCKET, SO_RCVLOWAT,
		   option(ops, SOL_SOCKET, SO_RCVLOWAT));
}

static __always_inline void start_probing(struct bpf_sock_ops *ops,
					  struct direction *direction)
{
	if (direction->probing || option(ops, SOL_SOCKET, SO_KEEPALIVE))
		return;
	direction->probing = 1;
	direction->idle = option(ops, SOL_TCP, TCP_KEEPIDLE);
	direction->interval = option(ops, SOL_TCP, TCP_KEEPINTVL);
	set_option(ops, SOL_TCP, TCP_KEEPIDLE, 1);
	set_option(ops, SOL_TCP, TCP_KEEPINTVL, 1);
	set_option(ops, SOL_SOCKET, SO_KEEPALIVE, 1);
}

static __always_inline void stop_probing(struct bpf_sock_ops *ops,
					 struct direction *direction)
{
	if (!direction->probing)
		return;
	direction->probing = 0;
	set_option(ops, SOL_SOCKET, SO_KEEPALIVE, 0);
	set_option(ops, SOL_TCP, TCP_KEEPIDLE, direction->idle);
	set_option(ops, SOL_TCP, TCP_KEEPINTVL, direction->interval);
}

/* Could a call on this socket still redirect to the other end? */
static __always_inline int is_redirecting(const struct direction *direction,
					  __u64 psock)
{
	return psock && direction->shared.redirected &&
	       !direction->shared.silent && is_in_call(psock);
}

/* Has it sent a byte through TCP? A FIN counts as one, and is none. */
static __always_inline int has_sent(const struct bpf_sock *sk,
				    const struct tcp_sock *tcp,
				    const struct direction *direction)
{
	__u32 numbers = tcp->write_seq - direction->own.sent;

	if (sk->state != BPF_TCP_ESTABLISHED && sk->state != BPF_TCP_CLOSE_WAIT)
		numbers--;
	return numbers != 0;
}

/* Before a segment leaves. True when there is nothing left to do ever. */
static __always_inline int hand_over(struct bpf_sock_ops *ops,
				     struct bpf_sock *sk,
				     struct counters *count,
				     struct direction *direction)
{
	struct tcp_sock *tcp = (struct tcp_sock *)bpf_skc_to_tcp_sock(sk);
	__u64 own = psock_of(direction->sk), peer;

	if (own && direction->verdict != VERDICT_TCP)
		return 0;
	if (!own && !direction->woken)
		wake_reader(ops, sk, direction);
	/* An accelerated connection that ends: its FIN brings no bytes. */
	if (!tcp || !has_sent(sk, tcp, direction))
		return 0;
	/* Nobody there, and this end out: a plain TCP socket for good. */
	if (!direction->peer_sk && find_peer(direction))
		return !own;
	if (!is_still(direction->peer_sk, direction->peer_cookie))
		return 1;
	peer = psock_of(direction->peer_sk);
	if (!peer || has_ulp(direction->peer_sk)) {
		stop_probing(ops, direction);
		return !own;
	}
	if (is_redirecting(direction, own))
		return 0;
	if (queue_is_empty(peer))
		take_out(count, &direction->peer);
	else
		start_probing(ops, direction);
	return 0;
}

#endif
