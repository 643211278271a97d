/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Network address translation: the client sees only the service, the backend
 * only the balancer. Packets of a connection that is under way need one look at
 * a table in each direction; everything else is in nat_flow.h.
 */
#ifndef EBPF_FLEET_XDP_LB_NAT_H
#define EBPF_FLEET_XDP_LB_NAT_H

#include <linux/bpf.h>

#include "count.h"
#include "icmp.h"
#include "maps.h"
#include "nat_flow.h"
#include "nat_rewrite.h"
#include "nat_table.h"
#include "next_hop.h"
#include "parse.h"

#define NOT_OURS -1

static __always_inline const struct address *
nat_address(const struct packet *packet, const struct settings *settings)
{
	return packet->family == AF_INET ? &settings->source4
					 : &settings->source6;
}

static __always_inline struct next_hop *way_hop(struct xdp_md *ctx,
						const struct way *way)
{
	return hop_to(ctx, way->backend, &way->reply.backend,
		      way->reply.family);
}

/*
 * The next hop of a flow that is under way. NULL if there is more to do: for a
 * new one, for one that seemed to be reset, and once a second.
 */
static __always_inline const struct next_hop *
follow(struct xdp_md *ctx, const struct packet *packet, struct way *way)
{
	const struct next_hop *hop;
	struct nat_entry *entry;

	if (packet->tcp_flags & TCP_CHANGES)
		return NULL;
	entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
	if (!entry || entry->state & FLOW_RESET ||
	    !set_backend(way, entry->backend, packet))
		return NULL;
	way->reply.nat_port = entry->nat_port;
	hop = way_hop(ctx, way);
	return hop && !since(entry->seen, hop->seconds) ? hop : NULL;
}

/* The way of any other: 0, or the reason to drop its packet. */
static __always_inline int find_way(struct xdp_md *ctx,
				    const struct packet *packet,
				    const struct service *service,
				    struct way *way)
{
	struct work *work = work_here();
	int reason;

	if (!work)
		return DROP_NO_ROOM;
	work->packet = *packet;
	work->service = *service;
	work->way = *way;
	reason = nat_find_way(ctx);
	*way = work->way;
	return reason;
}

/* Whether a translated packet can be sent: 0, or why not. */
static __always_inline int obstacle(const struct packet *packet,
				    const struct next_hop *hop)
{
	if (!hop)
		return DROP_NO_BACKEND;
	if (packet->ttl <= 1)
		return DROP_TTL;
	return hop->error;
}

/* As the backend sees it. */
static __always_inline void set_backend_ends(struct ends *ends,
					     const struct way *way,
					     const struct address *source)
{
	ends->source = source;
	ends->source_port = way->reply.nat_port;
	ends->destination = &way->reply.backend;
	ends->destination_port = way->reply.backend_port;
}

/* As the client sees it. */
static __always_inline void set_client_ends(struct ends *ends,
					    const struct nat_origin *origin)
{
	ends->source = &origin->vip;
	ends->source_port = origin->flow.service_port;
	ends->destination = &origin->flow.client;
	ends->destination_port = origin->flow.client_port;
}

static __always_inline int nat_to_backend(struct xdp_md *ctx,
					  const struct packet *packet,
					  const struct service *service,
					  const struct settings *settings)
{
	const struct next_hop *hop;
	struct way way = {};
	struct ends ends;
	int reason;

	set_flow(&way, packet, service->id);
	hop = follow(ctx, packet, &way);
	if (!hop) {
		reason = find_way(ctx, packet, service, &way);
		if (reason)
			return drop(service->id, reason);
		hop = way_hop(ctx, &way);
	}
	reason = obstacle(packet, hop);
	if (reason || !hop)
		return drop(service->id, reason);
	if (packet->length > hop->mtu)
		return too_big(ctx, packet, hop->mtu);
	set_backend_ends(&ends, &way, nat_address(packet, settings));
	translate(ctx, packet, &ends);
	count_forwarded(way.backend, packet);
	return transmit(ctx, hop);
}

static __always_inline void set_reply(struct way *way,
				      const struct packet *packet)
{
	way->reply.backend = packet->source;
	way->reply.backend_port = packet->source_port;
	way->reply.nat_port = packet->destination_port;
	way->reply.protocol = packet->protocol;
	way->reply.family = packet->family;
}

static __always_inline struct nat_origin *
find_origin(struct xdp_md *ctx, const struct packet *packet,
	    const struct way *way)
{
	struct work *work = work_here();

	if (!work)
		return NULL;
	work->packet = *packet;
	work->way = *way;
	return nat_find_origin(ctx) ? &work->origin : NULL;
}

static __always_inline int nat_to_client(struct xdp_md *ctx,
					 const struct packet *packet)
{
	struct nat_origin *origin = NULL;
	const struct next_hop *hop;
	struct way way = {};
	struct ends ends;
	int reason;

	set_reply(&way, packet);
	if (!(packet->tcp_flags & TCP_CHANGES))
		origin = bpf_map_lookup_elem(&nat_replies, &way.reply);
	if (!origin)
		origin = find_origin(ctx, packet, &way);
	if (!origin)
		return NOT_OURS;
	hop = client_hop(ctx, &origin->flow.client, packet->family);
	reason = obstacle(packet, hop);
	set_client_ends(&ends, origin);
	if (reason == DROP_NO_NEIGHBOUR) {
		/*
		 * Nobody else keeps clients' link-layer addresses: let the
		 * stack forward this one, and ask for it on the way.
		 */
		translate(ctx, packet, &ends);
		return pass(reason);
	}
	if (reason || !hop)
		return drop(origin->flow.service, reason);
	if (packet->length > hop->mtu)
		return too_big(ctx, packet, hop->mtu);
	if (since(origin->seen, hop->seconds))
		origin->seen = hop->seconds;
	translate(ctx, packet, &ends);
	return transmit(ctx, hop);
}

#endif
