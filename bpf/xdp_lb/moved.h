/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Flows in slots that have moved. The previous backend knows the connections
 * that were open then, and a SYN opens one at the new backend, so that only
 * those opened since need an entry. Until its client has sent more than a SYN
 * that entry is in flows_opening, where a flood may evict it; in flows
 * afterwards.
 */
#ifndef EBPF_FLEET_XDP_LB_MOVED_H
#define EBPF_FLEET_XDP_LB_MOVED_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "clock.h"
#include "count.h"
#include "maps.h"
#include "parse.h"
#include "ring.h"

static __always_inline void count_moved(__u32 service, int hit)
{
	struct service_counters *counters;

	counters = bpf_map_lookup_elem(&service_counters, &service);
	if (!counters)
		return;
	if (hit)
		counters->moved_hits++;
	else
		counters->moved_misses++;
}

/*
 * Whether an entry still speaks for a packet: not after silence, and not for
 * the SYN of a next connection.
 */
static __always_inline int speaks_for(const struct flow_entry *entry,
				      const struct packet *packet, __u32 now,
				      __u32 idle)
{
	if (now - entry->seen > idle)
		return 0;
	return !is_first_syn(packet) ||
	       !(entry->state & (FLOW_CLIENT_FIN | FLOW_RESET));
}

/* Write only what changes: the line is shared by CPUs. */
static __always_inline void touch(struct flow_entry *entry,
				  const struct packet *packet, __u32 now)
{
	__u8 state = entry->state;

	if (packet->tcp_flags & TCP_FIN)
		state |= FLOW_CLIENT_FIN;
	if (packet->tcp_flags & TCP_RST)
		state |= FLOW_RESET;
	if (entry->state != state)
		entry->state = state;
	if (entry->seen != now)
		entry->seen = now;
}

static __always_inline __u32 moved_tcp(const struct packet *packet,
				       const struct slot *slot,
				       const struct flow *flow, __u32 now,
				       __u32 idle)
{
	struct flow_entry fresh = {
		.backend = slot->backend,
		.slot = packet->slot,
		.seen = now,
		.state = FLOW_OPENING,
	};
	struct flow_entry *entry;

	entry = bpf_map_lookup_elem(&flows, flow);
	if (!entry || !speaks_for(entry, packet, now, idle))
		entry = bpf_map_lookup_elem(&flows_leaving, flow);
	if (entry && speaks_for(entry, packet, now, idle)) {
		touch(entry, packet, now);
		count_moved(flow->service, 1);
		return entry->backend;
	}
	entry = bpf_map_lookup_elem(&flows_opening, flow);
	if (entry && now - entry->seen <= idle) {
		count_moved(flow->service, 1);
		if (is_first_syn(packet))
			return entry->backend;
		fresh.backend = entry->backend;
		fresh.state = FLOW_OPEN;
		bpf_map_update_elem(&flows, flow, &fresh, BPF_ANY);
		bpf_map_delete_elem(&flows_opening, flow);
		return fresh.backend;
	}
	count_moved(flow->service, 0);
	if (is_first_syn(packet)) {
		/* what was there is over */
		bpf_map_delete_elem(&flows, flow);
		bpf_map_delete_elem(&flows_leaving, flow);
		bpf_map_update_elem(&flows_opening, flow, &fresh, BPF_ANY);
		return fresh.backend;
	}
	if (!usable_backend(slot->previous, flow->service))
		return slot->backend;
	fresh.backend = slot->previous;
	fresh.state = FLOW_OPEN;
	touch(&fresh, packet, now);
	bpf_map_update_elem(&flows_leaving, flow, &fresh, BPF_ANY);
	return fresh.backend;
}

/* Nothing tells a first datagram from a later one but the time. */
static __always_inline __u32 moved_udp(const struct packet *packet,
				       const struct slot *slot,
				       const struct flow *flow, __u32 since,
				       __u32 now,
				       const struct settings *settings)
{
	struct flow_entry old = {
		.backend = slot->previous,
		.slot = packet->slot,
		.seen = now,
		.state = FLOW_OPEN,
	};
	struct flow_entry *entry = bpf_map_lookup_elem(&flows_leaving, flow);

	if (entry && speaks_for(entry, packet, now, settings->idle_udp)) {
		touch(entry, packet, now);
		count_moved(flow->service, 1);
		return entry->backend;
	}
	count_moved(flow->service, 0);
	if (since >= settings->udp_grace ||
	    !usable_backend(slot->previous, flow->service))
		return slot->backend;
	bpf_map_update_elem(&flows_leaving, flow, &old, BPF_ANY);
	return old.backend;
}

/*
 * The backend (id) of a packet in a slot that has a previous one. moved: when
 * its ring last changed
 */
static __noinline __u32 moved_backend(const struct packet *packet,
				      const struct service *service,
				      const struct slot *slot, __u32 moved,
				      const struct settings *settings)
{
	struct flow flow = {
		.client = packet->source,
		.client_port = packet->source_port,
		.service_port = packet->destination_port,
		.service = service->id,
	};
	__u32 now = seconds_now();
	__u32 id;

	if (packet->protocol == IPPROTO_TCP)
		id = moved_tcp(packet, slot, &flow, now, settings->idle_tcp);
	else
		id = moved_udp(packet, slot, &flow, now - moved, now, settings);
	return usable_backend(id, service->id) ? id : slot->backend;
}

#endif
