/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the sockmap accelerator shares with user space: keys and values of its
 * maps. User space learns the layout from the object's BTF; nothing here is
 * repeated by hand elsewhere.
 */
#ifndef EBPF_FLEET_SOCKMAP_H
#define EBPF_FLEET_SOCKMAP_H

#include <linux/in6.h>
#include <linux/types.h>

/*
 * One end of a connection, as its initial sequence numbers (host byte order,
 * as tcp_sock has them at ESTABLISHED). The other end has the same two numbers
 * the other way round, whatever NAT, namespaces or address families are
 * between them, and no other connection has them.
 */
struct sequence_pair {
	__u32 sent; /* snd_nxt */
	__u32 received; /* rcv_nxt */
};

/* Key of policy_ports: the first prefixlen bits of the port, 0 to 16. */
struct port_prefix {
	__u32 prefixlen;
	__be16 port;
} __attribute__((packed));

/* Key of policy_cidrs. IPv4 is v4-mapped: ::ffff:a.b.c.d, prefixlen 96 + n. */
struct address_prefix {
	__u32 prefixlen;
	struct in6_addr address;
};

/* Value of settings, key 0. Zero is the ordinary state of everything. */
struct settings {
	/* 1: admit no connection, and move those in the map back to TCP */
	__u8 draining;
	/* 1: report connections on the ring buffer */
	__u8 events;
};

/*
 * Value of counters, key 0, one for each CPU. A connection with both ends
 * accelerated has two sockets and two directions, each counted by itself.
 */
struct counters {
	/* sockets */
	__u64 established; /* sockets seen reaching ESTABLISHED */
	__u64 admitted; /* entered the map */
	__u64 retired; /* left the map alive: plain TCP from then on */
	/* sockets left on TCP, why */
	__u64 not_policy; /* port or an address is in no policy entry */
	__u64 fast_open; /* data before ESTABLISHED */
	__u64 syn_cookie; /* accepted by cookie (or the SYN-ACK was repeated) */
	__u64 mptcp; /* a subflow of Multipath TCP */
	__u64 draining; /* settings.draining was set */
	__u64 map_full; /* no room in sockets */
	__u64 not_inserted; /* the kernel refused it for another reason */
	__u64 fionread; /* FIONREAD does not see redirected bytes */
	/* directions */
	__u64 paired; /* the first message found the other end in the map */
	/* directions that went to TCP, why */
	__u64 no_peer; /* the first message did not find the other end */
	__u64 peer_gone; /* the other end left the map */
	__u64 backlog; /* the receiver does not keep up */
	__u64 one_way; /* a stream of small messages, faster through TCP */
	__u64 ktls; /* kernel TLS was switched on */
	__u64 closing; /* written to after shutdown() */
	__u64 drained; /* settings.draining was set */
	/* messages */
	__u64 redirected_messages;
	__u64 redirected_bytes;
	__u64 tcp_messages; /* of sockets in the map, sent through TCP */
	__u64 tcp_bytes;
	/* events */
	__u64 events_lost; /* no room in the ring buffer */
};

enum event_kind {
	EVENT_ADMITTED = 1,
	EVENT_LEFT_ON_TCP = 2, /* never entered the map; see reason */
	EVENT_PAIRED = 3,
	EVENT_TO_TCP = 4, /* one direction; see reason */
	EVENT_RETIRED = 5,
};

enum event_reason {
	REASON_NONE = 0,
	REASON_NOT_POLICY,
	REASON_FAST_OPEN,
	REASON_SYN_COOKIE,
	REASON_MPTCP,
	REASON_DRAINING,
	REASON_MAP_FULL,
	REASON_NOT_INSERTED,
	REASON_NO_PEER,
	REASON_PEER_GONE,
	REASON_BACKLOG,
	REASON_ONE_WAY,
	REASON_KTLS,
	REASON_CLOSING,
	REASON_FIONREAD,
};

/* One record of the ring buffer events. */
struct event {
	__u64 nanoseconds; /* CLOCK_MONOTONIC */
	__u64 cookie; /* of the socket, SO_COOKIE */
	struct in6_addr local_address; /* IPv4 is v4-mapped */
	struct in6_addr remote_address;
	__be16 local_port;
	__be16 remote_port;
	__u8 kind; /* enum event_kind */
	__u8 reason; /* enum event_reason */
	__u16 unused;
};

#endif
