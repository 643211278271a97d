/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which of our ports a new flow gets. */
#ifndef EBPF_FLEET_XDP_LB_NAT_PORT_H
#define EBPF_FLEET_XDP_LB_NAT_PORT_H

#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "hash.h"
#include "maps.h"
#include "nat_table.h"
#include "nat_work.h"

/* Ports to look at before giving up, and from when on with what patience. */
#define PORT_PROBES  128
#define HURRIED_FROM 16
#define PRESSED_FROM 96
#define LAST_PROBES  120 /* enough where ports are short */

/* Whether the flow at work has that port, now or already. */
__noinline int nat_take_port(__u32 port, __u32 patience)
{
	struct work *work = work_here();

	if (!work)
		return 0;
	work->way.reply.nat_port = bpf_htons(port);
	return take(&work->way.reply, &work->origin, patience);
}

static __always_inline enum patience patience_at(__u32 probe)
{
	return probe < HURRIED_FROM   ? PATIENT
	       : probe < PRESSED_FROM ? HURRIED
				      : PRESSED;
}

/*
 * Where ports are scarce, one packet in a tick of the clock pays for a long
 * search, and others begin where it became less patient: a flood must not buy
 * our time with its own.
 */
static __always_inline __u32 first_probe(const struct next_hop *hop, __u32 tick)
{
	if (hop->crowded != tick)
		return 0;
	return hop->full ? LAST_PROBES : HURRIED_FROM;
}

static __always_inline void note_probe(struct next_hop *hop, __u32 tick,
				       __u32 probe)
{
	if (probe != HURRIED_FROM && probe != PRESSED_FROM)
		return;
	hop->full = probe == PRESSED_FROM;
	hop->crowded = tick;
}

/*
 * A port for the flow at work, 1 if there is one. The client's address and port
 * name the first to look at, so that a repeated SYN finds its own, and how far
 * to jump from there. claims: it had one of the first that are not in use, or
 * has none.
 */
static __always_inline int find_port(const struct work *work, int claims)
{
	const struct settings *settings = settings_now();
	__u32 ports, hash, stride, probe, last, id = work->way.backend;
	__u32 tick = bpf_jiffies64();
	struct next_hop *hop;

	hop = bpf_map_lookup_elem(&next_hops, &id);
	if (!hop || !settings ||
	    settings->nat_port_last < settings->nat_port_first)
		return 0;
	ports = settings->nat_port_last - settings->nat_port_first + 1;
	hash = hash_address(&work->way.flow.client, work->way.flow.client_port,
			    work->way.reply.family == AF_INET6);
	stride = ports > PORT_PROBES ? hash >> 16 | 1 : 1;
	probe = claims ? 0 : first_probe(hop, tick);
	last = claims ? HURRIED_FROM : PORT_PROBES;
	for (; probe < last; probe++) {
		if (!claims)
			note_probe(hop, tick, probe);
		if (nat_take_port(settings->nat_port_first + hash % ports,
				  claims ? CLAIMING : patience_at(probe)))
			return 1;
		hash += stride;
	}
	return 0;
}

#endif
