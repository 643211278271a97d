/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps. Keys and values of those that user space reads or writes are in
 * layout.h.
 */
#ifndef EBPF_FLEET_XDP_LB_MAPS_H
#define EBPF_FLEET_XDP_LB_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "layout.h"

#define AF_INET	     2
#define AF_INET6     10
#define MAX_SERVICES 1025 /* by id, which counts from 1 */
#define MAX_BACKENDS 8193
#define CLIENT_HOPS  4096 /* a power of two */

/* How to reach an address, as the routing tables said a moment ago. */
struct next_hop {
	struct address address;
	__u64 renewed; /* jiffies */
	__u32 ifindex; /* egress */
	__u32 link[3]; /* destination and source, as Ethernet has them */
	__u32 seconds; /* what seconds_now() said when it was renewed */
	__u32 crowded; /* jiffies when nat last looked long for a port */
	__u16 mtu;
	__u8 family;
	__u8 error; /* enum reason; 0: none */
	__u8 routed; /* 1: through a router, not on a link of ours */
	__u8 full; /* 1: and hardly found one */
};

/* What is balanced. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct service4);
	__type(value, struct service);
} services4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, struct service6);
	__type(value, struct service);
} services6 SEC(".maps");

/* What cannot be in them. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct service_filter);
} service_filter SEC(".maps");

/* By service id. Written and read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service_name);
} service_names SEC(".maps");

/* By backend id. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* By service id. Written by user space, which replaces a ring whole. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, sizeof(struct ring));
		});
} rings SEC(".maps");

/* Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/*
 * Connections in moved slots. Those that only a SYN vouches for have a table of
 * their own, so that a flood of SYNs evicts nothing that lives; those that stay
 * where they were are recorded only so that user space can count them. Written
 * by the data plane.
 */
struct flow_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct flow_entry);
};

struct flow_map flows_opening SEC(".maps");
struct flow_map flows SEC(".maps");
struct flow_map flows_leaving SEC(".maps");

/* Translations, likewise: what the other end has not confirmed is apart. */
struct nat_flow_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct flow);
	__type(value, struct nat_entry);
};

struct nat_reply_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct nat_reply);
	__type(value, struct nat_origin);
};

struct nat_flow_map nat_opening SEC(".maps");
struct nat_flow_map nat_flows SEC(".maps");
struct nat_reply_map nat_replies_opening SEC(".maps");
struct nat_reply_map nat_replies SEC(".maps");

/*
 * Ports that one CPU is about to take from a flow that has no use for them, or
 * whose flow it confirms: a lock, so that no other CPU does either at the same
 * time. The data plane's own.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct nat_reply);
	__type(value, __u8);
} nat_takeovers SEC(".maps");

/* Written by the data plane, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend_counters);
} backend_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_SERVICES);
	__type(key, __u32);
	__type(value, struct service_counters);
} service_counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASONS);
	__type(key, __u32); /* enum reason */
	__type(value, __u64);
} reasons SEC(".maps");

/* By backend id, and by a hash of a client's address; the data plane's own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, CLIENT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} client_hops SEC(".maps");

static __always_inline const struct settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

#endif
