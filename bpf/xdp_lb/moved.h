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

/* A packet in a slot that has a previous backend. */
struct moved {
	const struct packet *packet;
	struct flow flow;
	__u32 now;
	__u32 idle; /* seconds after which a silent flow has ended */
};

/* Whether a backend may answer a SYN of a connection that it may still have. */
static __always_inline int may_answer(__u32 id, __u32 service)
{
	const struct backend *backend = usable_backend(id, service);

	return backend && backend->health != HEALTH_DOWN;
}

/*
 * Whether an entry speaks for the packet: not after silence, and not for the
 * SYN of a next connection, or if its backend could not answer that.
 */
static __always_inline int speaks_for(const struct flow_entry *entry,
				      const struct moved *moved)
{
	if (since(entry->seen, moved->now) > moved->idle)
		return 0;
	if (!is_first_syn(moved->packet))
		return 1;
	return !(entry->state & (FLOW_CLIENT_FIN | FLOW_RESET)) &&
	       may_answer(entry->backend, moved->flow.service);
}

/* NULL: none that speaks for the packet */
static __always_inline struct flow_entry *find_entry(void *table,
						     const struct moved *moved)
{
	struct flow_entry *entry = bpf_map_lookup_elem(table, &moved->flow);

	return entry && speaks_for(entry, moved) ? entry : NULL;
}

/* Write only what changes: the line is shared by CPUs. */
static __always_inline void touch(struct flow_entry *entry,
				  const struct moved *moved)
{
	__u8 state = entry->state;

	if (moved->packet->tcp_flags & TCP_FIN)
		state |= FLOW_CLIENT_FIN;
	if (moved->packet->tcp_flags & TCP_RST)
		state |= FLOW_RESET;
	if (entry->state != state)
		entry->state = state;
	if (entry->seen != moved->now)
		entry->seen = moved->now;
}

static __always_inline void insert(void *table, const struct moved *moved,
				   __u32 backend, __u8 state)
{
	struct flow_entry entry = {
		.backend = backend,
		.slot = moved->packet->slot,
		.state = state,
	};

	touch(&entry, moved);
	bpf_map_update_elem(table, &moved->flow, &entry, BPF_ANY);
}

/*
 * No table knows the packet: it is of a connection from before the move. Its
 * backend; 0: that is gone.
 */
static __always_inline __u32 leave(const struct moved *moved,
				   const struct slot *slot)
{
	if (!usable_backend(slot->previous, moved->flow.service))
		return 0;
	insert(&flows_leaving, moved, slot->previous, FLOW_OPEN);
	return slot->previous;
}

/* The client has sent more than a SYN. */
static __always_inline __u32 confirm_flow(const struct moved *moved,
					  __u32 backend)
{
	insert(&flows, moved, backend, FLOW_OPEN);
	bpf_map_delete_elem(&flows_opening, &moved->flow);
	return backend;
}

/* What the tables say of such a flow is over. */
static __always_inline __u32 open_flow(const struct moved *moved,
				       const struct slot *slot)
{
	bpf_map_delete_elem(&flows, &moved->flow);
	bpf_map_delete_elem(&flows_leaving, &moved->flow);
	insert(&flows_opening, moved, slot->backend, FLOW_OPENING);
	return slot->backend;
}

static __always_inline __u32 moved_tcp(const struct moved *moved,
				       const struct slot *slot)
{
	struct flow_entry *entry = find_entry(&flows, moved);
	__u32 backend;

	if (!entry)
		entry = find_entry(&flows_leaving, moved);
	if (entry) {
		touch(entry, moved);
		count_moved(moved->flow.service, 1);
		return entry->backend;
	}
	entry = find_entry(&flows_opening, moved);
	if (entry) {
		backend = entry->backend;
		count_moved(moved->flow.service, 1);
		return is_first_syn(moved->packet)
			       ? backend
			       : confirm_flow(moved, backend);
	}
	count_moved(moved->flow.service, 0);
	return is_first_syn(moved->packet) ? open_flow(moved, slot)
					   : leave(moved, slot);
}

/* Nothing tells a first datagram from a later one but the time. 0: a first */
static __always_inline __u32 moved_udp(const struct moved *moved,
				       const struct slot *slot, int is_soon)
{
	struct flow_entry *entry = find_entry(&flows_leaving, moved);

	count_moved(moved->flow.service, entry != NULL);
	if (entry) {
		touch(entry, moved);
		return entry->backend;
	}
	return is_soon ? leave(moved, slot) : 0;
}

/*
 * The backend (id) of a packet in a slot that has a previous one. when: its
 * ring last changed
 */
static __noinline __u32 moved_backend(const struct packet *packet,
				      const struct service *service,
				      const struct slot *slot, __u32 when,
				      const struct settings *settings)
{
	struct moved moved = {
		.packet = packet,
		.flow.client = packet->source,
		.flow.client_port = packet->source_port,
		.flow.service_port = packet->destination_port,
		.flow.service = service->id,
		.now = seconds_now(),
		.idle = settings->idle_tcp,
	};
	__u32 id;

	if (packet->protocol == IPPROTO_TCP) {
		id = moved_tcp(&moved, slot);
	} else {
		moved.idle = settings->idle_udp;
		id = moved_udp(&moved, slot,
			       since(when, moved.now) < settings->udp_grace);
	}
	return usable_backend(id, service->id) ? id : slot->backend;
}

#endif
