/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of a flow: it begins, is confirmed, ends, begins again. */
#ifndef EBPF_FLEET_XDP_LB_NAT_FLOW_H
#define EBPF_FLEET_XDP_LB_NAT_FLOW_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "nat_port.h"
#include "nat_table.h"
#include "nat_work.h"
#include "parse.h"
#include "ring.h"

/* Flags of a packet that changes what a flow is. */
#define TCP_CHANGES (TCP_SYN | TCP_FIN | TCP_RST)

/* May the packet begin a connection? */
static __always_inline int is_opener(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || is_first_syn(packet);
}

static __always_inline void set_flow(struct way *way,
				     const struct packet *packet, __u32 service)
{
	way->flow.client = packet->source;
	way->flow.client_port = packet->source_port;
	way->flow.service_port = packet->destination_port;
	way->flow.service = service;
}

/* To that backend: NULL if packets of the flow may not go there. */
static __always_inline const struct backend *
set_backend(struct way *way, __u32 id, const struct packet *packet)
{
	const struct backend *backend = usable_backend(id, way->flow.service);

	if (!backend || backend->family != packet->family)
		return NULL;
	way->backend = id;
	way->reply.backend = backend->address;
	way->reply.backend_port =
		backend->port ? backend->port : way->flow.service_port;
	way->reply.protocol = packet->protocol;
	way->reply.family = packet->family;
	return backend;
}

static __always_inline void set_origin(struct nat_origin *origin,
				       const struct way *way,
				       const struct packet *packet, __u32 now)
{
	origin->flow = way->flow;
	origin->vip = packet->destination;
	origin->seen = now;
}

static __always_inline void count_udp_flow(const struct way *way)
{
	struct backend_counters *counters;
	__u32 id = way->backend;

	counters = bpf_map_lookup_elem(&backend_counters, &id);
	if (counters && way->reply.protocol == IPPROTO_UDP)
		counters->connections++;
}

/* The backend's id that the ring names; 0: none */
static __always_inline __u32 ring_choice(const struct work *work)
{
	const struct ring *ring = find_ring(work->service.id);
	const struct slot *slot;

	if (!ring)
		return 0;
	slot = ring_slot(ring, slot_index(&work->packet, &work->service));
	return slot ? slot->backend : 0;
}

/*
 * A new flow, by the ring: 0, or the reason to drop its packet.
 *
 * Or an old one. A flood of SYNs evicts half-open flows, and a client whose
 * handshake is over on its side never sends another SYN: its connection would
 * hang. But ring and hash name the same backend and port again, and the backend
 * knows what came of the SYN: it answers the packet, or resets the connection.
 * The flow stays among the unconfirmed until the backend says what the client
 * acknowledges, which nobody could who has not heard from it.
 */
static __always_inline int begin(struct xdp_md *ctx, struct work *work)
{
	const struct packet *packet = &work->packet;
	int claims = !is_opener(packet);
	struct nat_entry entry = {};
	const struct tcphdr *tcp;

	if (!set_backend(&work->way, ring_choice(work), packet))
		return DROP_NO_BACKEND;
	entry.seen = seconds_now();
	set_origin(&work->origin, &work->way, packet, entry.seen);
	if (!find_port(work, claims))
		return claims ? DROP_NO_CONNECTION : DROP_NO_PORT;
	if (claims) {
		tcp = transport(ctx, packet, sizeof(*tcp));
		if (tcp)
			entry.server_sequence = bpf_ntohl(tcp->ack_seq);
		entry.state = FLOW_CLAIMED;
	}
	entry.backend = work->way.backend;
	entry.nat_port = work->way.reply.nat_port;
	entry.protocol = packet->protocol;
	if (bpf_map_update_elem(&nat_opening, &work->way.flow, &entry,
				BPF_ANY)) {
		forget(&work->way);
		return DROP_NO_ROOM;
	}
	count_udp_flow(&work->way);
	return 0;
}

/* Seconds since the backend was heard; for ever if there is no telling. */
static __always_inline __u32 backend_silence(const struct way *way, __u32 now)
{
	const struct nat_origin *origin;

	origin = bpf_map_lookup_elem(&nat_replies, &way->reply);
	return origin ? since(origin->seen, now) : ~0U;
}

/* Whether the packet, an opener, begins another connection where one was. */
static __always_inline int begins_again(const struct work *work,
					const struct nat_entry *entry,
					const struct backend *backend)
{
	const struct settings *settings = settings_now();
	const struct way *way = &work->way;
	int is_udp = way->reply.protocol == IPPROTO_UDP;
	__u32 now = seconds_now();
	__u32 idle;

	if (!settings)
		return 0;
	idle = idle_limit(settings, way->reply.protocol);
	if (since(entry->seen, now) >= idle &&
	    backend_silence(way, now) >= idle)
		return 1;
	if (backend->health == HEALTH_DOWN && ring_choice(work) != way->backend)
		return !is_udp || backend_silence(way, now) >= LINGER_HURRIED;
	if (is_udp)
		return 0;
	if (entry->state & FLOW_CLAIMED)
		return 1;
	/* Reset by its client, or so it seems: the backend will know. */
	return is_finished(entry) ||
	       (entry->state & FLOW_RESET && backend->state != BACKEND_ACTIVE);
}

/* Note what the client did. Write only what changes: CPUs share the line. */
static __always_inline void note_client(struct nat_entry *entry,
					const struct packet *packet, __u32 now)
{
	__u8 state = entry->state;

	/* What goes on was not reset. */
	if (!is_finished(entry))
		state &= ~FLOW_RESET;
	if (packet->tcp_flags & TCP_FIN)
		state |= FLOW_CLIENT_FIN;
	if (packet->tcp_flags & TCP_RST)
		state |= FLOW_RESET;
	if (entry->state != state)
		entry->state = state;
	if (entry->seen != now)
		entry->seen = now;
}

/* Neither the first packet of a connection nor one of its last? */
static __always_inline int is_under_way(const struct packet *packet)
{
	return packet->protocol == IPPROTO_TCP &&
	       (packet->tcp_flags & (TCP_CHANGES | TCP_ACK)) == TCP_ACK;
}

/* Does the client acknowledge the backend's SYN? Only who got it can. */
static __always_inline int acknowledges(struct xdp_md *ctx,
					const struct packet *packet,
					const struct nat_entry *entry)
{
	const struct tcphdr *tcp;

	if (packet->protocol != IPPROTO_TCP || !entry->server_sequence ||
	    entry->state & FLOW_CLAIMED ||
	    (packet->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return 0;
	tcp = transport(ctx, packet, sizeof(*tcp));
	return tcp && bpf_ntohl(tcp->ack_seq) == entry->server_sequence;
}

/*
 * The flow has an entry. Whether it has its port, too: its answers' entry may
 * have been evicted, and the port been given to another.
 */
static __always_inline int keeps_port(struct work *work, int confirmed)
{
	const struct way *way = &work->way;
	struct nat_origin *holder;

	if (confirmed) {
		holder = bpf_map_lookup_elem(&nat_replies, &way->reply);
		if (holder)
			return same_flow(&holder->flow, &way->flow);
	}
	set_origin(&work->origin, way, &work->packet, seconds_now());
	if (!hold(&way->reply, &work->origin))
		return 0;
	if (!confirmed)
		return 1;
	if (bpf_map_update_elem(&nat_replies, &way->reply, &work->origin,
				BPF_ANY))
		return 0;
	bpf_map_delete_elem(&nat_replies_opening, &way->reply);
	return 1;
}

/* Along the flow's entry: 0, or the reason why that leads nowhere. */
static __always_inline int go_on(struct xdp_md *ctx, struct work *work)
{
	const struct packet *packet = &work->packet;
	struct way *way = &work->way;
	const struct backend *backend;
	struct nat_entry *entry;
	int confirmed = 1;

	entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
	if (!entry) {
		entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
		confirmed = 0;
	}
	if (!entry) { /* another CPU may just have confirmed it */
		entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
		confirmed = 1;
	}
	if (!entry)
		return DROP_NO_CONNECTION;
	backend = set_backend(way, entry->backend, packet);
	if (!backend) {
		if (is_opener(packet))
			forget_flow(way);
		return DROP_NO_BACKEND;
	}
	way->reply.nat_port = entry->nat_port;
	if ((is_opener(packet) && begins_again(work, entry, backend)) ||
	    !keeps_port(work, confirmed)) {
		forget(way);
		return DROP_NO_CONNECTION;
	}
	if (!confirmed && acknowledges(ctx, packet, entry) && !confirm(way)) {
		entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
		if (!entry)
			return DROP_NO_CONNECTION;
	}
	note_client(entry, packet, seconds_now());
	return 0;
}

/* The packet at work is a client's: 0 and its way, or the reason to drop it. */
__noinline int nat_find_way(struct xdp_md *ctx)
{
	struct work *work = work_here();
	int reason;

	if (!work)
		return DROP_NO_ROOM;
	reason = go_on(ctx, work);
	if (!reason)
		return 0;
	if (!is_opener(&work->packet) &&
	    (reason != DROP_NO_CONNECTION || !is_under_way(&work->packet)))
		return reason;
	return begin(ctx, work);
}

/* Note what the backend did. */
static __always_inline void note_backend(struct nat_entry *entry,
					 const struct packet *packet)
{
	if (packet->tcp_flags & TCP_FIN)
		entry->state |= FLOW_BACKEND_FIN;
	if (packet->tcp_flags & TCP_RST)
		entry->state |= FLOW_BACKEND_FIN | FLOW_RESET;
}

/*
 * The backend's first packets: 1 if they confirm the flow, as a datagram does,
 * and what a client has claimed. A SYN-ACK has to be confirmed.
 */
static __always_inline int note_answer(struct xdp_md *ctx,
				       const struct packet *packet,
				       struct nat_entry *entry)
{
	const struct tcphdr *tcp;

	note_backend(entry, packet);
	if (packet->protocol == IPPROTO_UDP)
		return 1;
	tcp = transport(ctx, packet, sizeof(*tcp));
	if (!tcp)
		return 0;
	if (entry->state & FLOW_CLAIMED)
		return (packet->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) ==
			       TCP_ACK &&
		       bpf_ntohl(tcp->seq) == entry->server_sequence;
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) == (TCP_SYN | TCP_ACK))
		entry->server_sequence = bpf_ntohl(tcp->seq) + 1;
	return 0;
}

/* Of an unconfirmed flow; it may become a confirmed one. */
static __always_inline void
answered(struct xdp_md *ctx, const struct packet *packet, const struct way *way)
{
	struct nat_entry *entry;

	entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
	if (entry && note_answer(ctx, packet, entry))
		confirm(way);
}

/* The packet at work is a backend's: 1 and whose answer it is, or nobody's. */
__noinline int nat_find_origin(struct xdp_md *ctx)
{
	struct work *work = work_here();
	struct nat_origin *origin;
	struct nat_entry *entry;

	if (!work)
		return 0;
	origin = bpf_map_lookup_elem(&nat_replies, &work->way.reply);
	if (!origin) {
		origin = bpf_map_lookup_elem(&nat_replies_opening,
					     &work->way.reply);
		if (origin) {
			origin->seen = seconds_now();
			work->origin = *origin;
			work->way.flow = work->origin.flow;
			answered(ctx, &work->packet, &work->way);
			return 1;
		}
		/* another CPU may just have confirmed it */
		origin = bpf_map_lookup_elem(&nat_replies, &work->way.reply);
	}
	if (!origin)
		return 0;
	work->origin = *origin;
	entry = bpf_map_lookup_elem(&nat_flows, &work->origin.flow);
	if (entry)
		note_backend(entry, &work->packet);
	return 1;
}

#endif
