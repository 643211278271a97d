/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A connection's addresses: the policy that admits it and the events on it. */
#ifndef EBPF_FLEET_SOCKMAP_CONNECTION_H
#define EBPF_FLEET_SOCKMAP_CONNECTION_H

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

#define AF_INET	     2
#define AF_INET6     10
#define PORT_BITS    16
#define ADDRESS_BITS 128

struct connection {
	struct in6_addr local_address; /* IPv4 is v4-mapped */
	struct in6_addr remote_address;
	__be16 local_port;
	__be16 remote_port;
};

/*
 * Read a context member here, and nowhere else: the verifier refuses a pointer
 * into the context that the compiler has computed to merge two reads, so each
 * is tied to an empty instruction that no other read has.
 */
#define CONTEXT(member)                                                        \
	({                                                                     \
		__u32 value_ = (member);                                       \
		asm volatile("# " #member : "+r"(value_));                     \
		value_;                                                        \
	})

#define READ_ADDRESS(to, from)                                                 \
	do {                                                                   \
		(to).in6_u.u6_addr32[0] = CONTEXT((from)[0]);                  \
		(to).in6_u.u6_addr32[1] = CONTEXT((from)[1]);                  \
		(to).in6_u.u6_addr32[2] = CONTEXT((from)[2]);                  \
		(to).in6_u.u6_addr32[3] = CONTEXT((from)[3]);                  \
	} while (0)

static __always_inline void v4_mapped(struct in6_addr *mapped, __be32 address)
{
	mapped->in6_u.u6_addr32[0] = 0;
	mapped->in6_u.u6_addr32[1] = 0;
	mapped->in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	mapped->in6_u.u6_addr32[3] = address;
}

/* ctx: struct bpf_sock_ops or struct sk_msg_md, which name their members alike
 */
#define READ_CONNECTION(ctx, connection)                                       \
	({                                                                     \
		int read_ = 1;                                                 \
		/* local_port is in host order, remote_port a network __u32 */ \
		(connection)->remote_port =                                    \
			bpf_htons(bpf_ntohl((ctx)->remote_port));              \
		(connection)->local_port = bpf_htons((ctx)->local_port);       \
		if ((ctx)->family == AF_INET) {                                \
			v4_mapped(&(connection)->local_address,                \
				  CONTEXT((ctx)->local_ip4));                  \
			v4_mapped(&(connection)->remote_address,               \
				  CONTEXT((ctx)->remote_ip4));                 \
		} else if ((ctx)->family == AF_INET6) {                        \
			READ_ADDRESS((connection)->local_address,              \
				     (ctx)->local_ip6);                        \
			READ_ADDRESS((connection)->remote_address,             \
				     (ctx)->remote_ip6);                       \
		} else {                                                       \
			read_ = 0;                                             \
		}                                                              \
		read_;                                                         \
	})

static __always_inline int address_allowed(const struct in6_addr *address)
{
	struct address_prefix key = {
		.prefixlen = ADDRESS_BITS,
		.address = *address,
	};

	return bpf_map_lookup_elem(&policy_cidrs, &key) != NULL;
}

/* Default deny: the service's port and both addresses have to be named. */
static __always_inline int policy_allows(const struct connection *connection,
					 int active)
{
	struct port_prefix key = {
		.prefixlen = PORT_BITS,
		.port = active ? connection->remote_port
			       : connection->local_port,
	};

	return bpf_map_lookup_elem(&policy_ports, &key) &&
	       address_allowed(&connection->local_address) &&
	       address_allowed(&connection->remote_address);
}

static __always_inline void report(struct counters *count,
				   const struct connection *connection,
				   __u64 cookie, int kind, int reason)
{
	struct event *event;

	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count->events_lost++;
		return;
	}
	event->nanoseconds = bpf_ktime_get_ns();
	event->cookie = cookie;
	event->local_address = connection->local_address;
	event->remote_address = connection->remote_address;
	event->local_port = connection->local_port;
	event->remote_port = connection->remote_port;
	event->kind = kind;
	event->reason = reason;
	event->unused = 0;
	bpf_ringbuf_submit(event, 0);
}

#endif
