/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What user space and the data plane agree on: the keys and values of every
 * pinned map. A change here is a change of LAYOUT; the data plane passes every
 * packet while settings.layout names another.
 *
 * Addresses are 16 bytes in network byte order; IPv4 uses the first 4 and
 * leaves the rest zero. Ids count from 1: 0 means none.
 */
#ifndef EBPF_FLEET_XDP_LB_LAYOUT_H
#define EBPF_FLEET_XDP_LB_LAYOUT_H

#include <linux/types.h>

#define LAYOUT	   1
#define RING_SLOTS 65537 /* a prime, as Maglev wants it */

struct address {
	__be32 word[4];
};

enum forwarding {
	FORWARD_NONE = 0, /* only the address is ours: echo, ICMP errors */
	FORWARD_NAT = 1,
	FORWARD_DSR = 2,
	FORWARD_IPIP = 3,
};

enum service_flag {
	SERVICE_BY_SOURCE = 1 << 0, /* the client's port does not choose */
};

/*
 * A service by what a packet to it looks like. Port 0 stands for every port;
 * protocol ICMP (1, or 58 for IPv6) with port 0 says that the address is a VIP.
 */
struct service4 {
	__be32 address;
	__be16 port;
	__u8 protocol; /* IPPROTO_* */
	__u8 zero;
};

struct service6 {
	struct address address;
	__be16 port;
	__u8 protocol;
	__u8 zero;
};

/*
 * A first look at what is not ours, which costs less than a hash map: the bit
 * of each key of services4 and services6 is set, with SETTINGS_FILTER; others
 * may be. With keys as words in the machine's byte order, modulo 2^64:
 *
 *   service4	(the key as one 64-bit word) * FILTER_FACTOR
 *   service6	((a * FILTER_FACTOR + b) * FILTER_FACTOR + c) * FILTER_FACTOR
 *		a, b: the address's halves, c: the last 32 bits
 *
 * of which the upper 16 bits are the bit's number: bits[number / 64], counted
 * from the lowest. Set a bit no later than its service is added, clear it no
 * sooner than its last one is removed.
 */
#define FILTER_FACTOR 0x9e3779b97f4a7c15ULL
#define FILTER_BITS   65536

struct service_filter {
	__u64 bits[FILTER_BITS / 64];
};

struct service {
	__u32 id; /* of its ring and counters; 0 for a bare address */
	__u8 forwarding; /* enum forwarding */
	__u8 flags; /* enum service_flag */
	__u16 zero;
};

/* What an operator calls a service, by id. Only user space reads it. */
struct service_name {
	char name[64];
};

/* What an operator said of a backend, and what health checks say. */
enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_DRAINING = 1, /* no new connections */
	BACKEND_DISABLED = 2, /* no packets */
};

enum backend_health {
	HEALTH_UNKNOWN = 0, /* nobody checks it: as if up */
	HEALTH_UP = 1,
	HEALTH_DOWN = 2, /* out of the ring; its connections stay */
};

/* A server of one service, by id. Written by user space. */
struct backend {
	struct address address;
	__u32 service; /* id */
	__be16 port; /* for nat; 0: as the client sent it */
	__u8 family; /* AF_INET, AF_INET6; 0: the id is free */
	__u8 state; /* enum backend_state */
	__u8 health; /* enum backend_health */
	__u8 zero[3];
	__u32 weight; /* 1 to 65535 */
};

/*
 * Which backend a flow's hash names. A slot that has never moved, or that all
 * its old connections have left, has no previous one, and its flows need no
 * state: flow -> slot -> backend. While there is a previous one, a connection
 * goes there unless the flow table says that it was opened since.
 */
struct slot {
	__u16 backend; /* id; 0: the service has none */
	__u16 previous; /* id; 0: settled */
};

/* A service's ring is the only entry of a map; a new map replaces it. */
struct ring {
	struct slot slots[RING_SLOTS];
	__u32 moved; /* CLOCK_MONOTONIC >> 30 ns of its last change */
};

/* A connection as its client sees it. */
struct flow {
	struct address client;
	__be16 client_port;
	__be16 service_port; /* as the client sent it */
	__u32 service; /* id */
};

enum flow_state {
	FLOW_OPENING = 0, /* the client's SYN was seen */
	FLOW_OPEN = 1, /* and its acknowledgement */
	FLOW_CLIENT_FIN = 2, /* bits from here on */
	FLOW_BACKEND_FIN = 4, /* nat only: nothing else shows us replies */
	FLOW_RESET = 8,
	FLOW_CLAIMED = 16, /* nat only: begun without its SYN, see nat_flow.h */
};

/* Where a flow in a moved slot goes. */
struct flow_entry {
	__u32 backend; /* id */
	__u32 slot;
	__u32 seen; /* CLOCK_MONOTONIC >> 30 ns, about seconds, coarse */
	__u8 state; /* enum flow_state */
	__u8 zero[3];
};

/* The backend's side of a nat flow: what its packets look like. */
struct nat_reply {
	struct address backend;
	__be16 backend_port;
	__be16 nat_port; /* our port, to which the backend answers */
	__u8 protocol;
	__u8 family;
	__u16 zero;
};

/* The client's side: from (flow) to (nat_entry). */
struct nat_entry {
	__u32 backend; /* id */
	__u32 seen; /* as in flow_entry */
	__u32 server_sequence; /* host byte order: what the client's first ACK
				  must acknowledge; 0: no SYN-ACK yet. If
				  claimed, what it has acknowledged */
	__be16 nat_port;
	__u8 state; /* enum flow_state */
	__u8 protocol;
};

/* And back: from (nat_reply) to (nat_origin). */
struct nat_origin {
	struct flow flow;
	struct address vip;
	__u32 seen; /* of the backend's packets, as in flow_entry */
};

enum settings_flag {
	SETTINGS_ANY_PORT = 1 << 0, /* some service has port 0 */
	SETTINGS_NAT4 = 1 << 1, /* some service needs nat over IPv4 */
	SETTINGS_NAT6 = 1 << 2,
	SETTINGS_FILTER = 1 << 3, /* service_filter is kept */
};

/* Written by user space. */
struct settings {
	__u32 layout; /* LAYOUT; 0: not configured yet */
	__u32 flags; /* enum settings_flag */
	struct address source4; /* outer source of IPIP and 4-in-4 nat */
	struct address source6; /* outer source of IP6IP6, 4-in-6, IPv6 nat */
	__u16 nat_port_first; /* host byte order */
	__u16 nat_port_last;
	__u32 idle_tcp; /* seconds after which a silent flow counts as gone */
	__u32 idle_udp;
	__u32 zero;
	__u32 udp_grace; /* seconds for which a moved slot's UDP flows are taken
			    for old ones and stay where they were */
};

/* Per CPU, by backend id. Written by the data plane. */
struct backend_counters {
	__u64 packets; /* forwarded to it */
	__u64 bytes; /* from the IP header on, as the client sent them */
	__u64 connections; /* TCP: SYNs forwarded; UDP: nat flows made */
};

/* Per CPU, by service id. Written by the data plane. */
struct service_counters {
	__u64 dropped; /* packets to it, for any DROP_ reason */
	__u64 moved_hits; /* packets that the flow tables decided */
	__u64 moved_misses; /* packets in moved slots that no table knew */
};

/*
 * Why a packet was not forwarded, or what else was done with it; per CPU.
 * Passes are to the host's own stack.
 */
enum reason {
	PASS_FOREIGN = 0, /* no address of ours, or no service on that port */
	PASS_NOT_CONFIGURED, /* settings.layout is not LAYOUT */
	PASS_OPTIONS, /* to a VIP, with IPv4 options, or IPv6 headers that lead
			 elsewhere or are too many */
	PASS_FRAGMENT, /* to a VIP, in fragments */
	PASS_ICMP, /* to a VIP, neither echo nor an error for a flow */
	PASS_MALFORMED, /* headers that do not fit the packet */
	DROP_NO_BACKEND, /* every backend is disabled or there is none */
	DROP_NO_ROUTE, /* no route to the backend */
	DROP_NO_NEIGHBOUR, /* its link-layer address is not known yet */
	DROP_TTL, /* time to live, hop limit */
	DROP_NO_CONNECTION, /* nat: not a SYN, and in no table */
	DROP_NO_PORT, /* nat: no port is free towards this backend */
	DROP_NO_ROOM, /* no headroom to encapsulate, or a table is full */
	ECHO_REPLIED,
	ICMP_FORWARDED, /* errors, routed by the packet they quote */
	TOO_BIG_SENT, /* fragmentation needed, packet too big */
	DROP_NOT_FORWARDING, /* the interface's sysctl "forwarding" is off */
	REASONS,
};

#endif
