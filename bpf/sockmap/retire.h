/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Leaving the map alive. A socket that sends through TCP still pays for the
 * way through the sk_msg program; taken out of the map it is a plain TCP
 * socket again. What its own queue holds would be lost, so it leaves only when
 * nothing is in that queue and nothing can come:
 *
 *   1. it is marked as retiring. The other end looks at the mark before each
 *      message that it redirects;
 *   2. SETTLE_NS later, longer than any store takes to be seen, the other end
 *      has never redirected anything, or it has gone to TCP for good in a call
 *      that was the only one, or no call of it is under way, or it has left the
 *      map itself; and the queue is empty: out;
 *   3. when its own last call has returned and the other end's queue is empty,
 *      the other end has nothing to expect from the map either: out with it.
 *
 * All of it happens in the sockops callback for a round trip measured on the
 * sender, which data sent through TCP causes and redirected data does not.
 */
#ifndef EBPF_FLEET_SOCKMAP_RETIRE_H
#define EBPF_FLEET_SOCKMAP_RETIRE_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "receiver.h"

#define SETTLE_NS (5 * 1000 * 1000)

/* Nothing will be redirected to this socket any more. */
static __always_inline int peer_is_silent(const struct direction *direction)
{
	struct shared peer = {};
	__u64 psock;

	if (!direction->peer_sk ||
	    !is_still(direction->peer_sk, direction->peer_cookie))
		return 1;
	psock = psock_of(direction->peer_sk);
	if (!psock || !is_in_call(psock))
		return 1;
	return !bpf_probe_read_kernel(&peer, sizeof(peer),
				      (void *)direction->peer_shared) &&
	       (!peer.redirected || peer.silent);
}

static __always_inline int take_out(struct counters *count,
				    const struct sequence_pair *key)
{
	struct sequence_pair copy = *key;

	if (bpf_map_delete_elem(&sockets, &copy))
		return 0;
	count->retired++;
	return 1;
}

/*
 * One step of the above. Returns the number of sockets that left the map, or -1
 * when there is nothing left to do.
 */
static __always_inline int retire_step(struct counters *count,
				       struct direction *direction)
{
	__u64 psock = psock_of(direction->sk), now, peer;

	/* Kernel TLS has built on what the map has put there. */
	if (has_ulp(direction->sk))
		return -1;
	if (psock) {
		now = bpf_ktime_get_ns();
		if (!direction->shared.retiring) {
			direction->retiring_since = now;
			direction->shared.retiring = 1;
			return 0;
		}
		if (now - direction->retiring_since < SETTLE_NS ||
		    !peer_is_silent(direction) || !queue_is_empty(psock))
			return 0;
		return take_out(count, &direction->own);
	}
	if (!direction->peer_sk ||
	    !is_still(direction->peer_sk, direction->peer_cookie))
		return -1;
	peer = psock_of(direction->peer_sk);
	if (!peer || has_ulp(direction->peer_sk))
		return -1;
	return queue_is_empty(peer) ? take_out(count, &direction->peer) : 0;
}

#endif
