/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ICMP errors about packets that were sent from here, or in a service's name:
 * they go to whom the packet came from, who alone can do something about it.
 */
#ifndef EBPF_FLEET_XDP_LB_ICMP_ERROR_H
#define EBPF_FLEET_XDP_LB_ICMP_ERROR_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "count.h"
#include "forward.h"
#include "icmp_quote.h"
#include "maps.h"
#include "nat.h"
#include "nat_flow.h"
#include "nat_table.h"
#include "next_hop.h"
#include "parse.h"
#include "service.h"

static __always_inline int send_error(struct xdp_md *ctx,
				      const struct packet *packet,
				      const struct packet *opposite,
				      const struct ends *ends,
				      const struct next_hop *hop)
{
	translate_error(ctx, packet, opposite, ends);
	count(ICMP_FORWARDED);
	return transmit(ctx, hop);
}

/* About a packet from nat to a backend: its client has to know. */
static __always_inline int error_to_client(struct xdp_md *ctx,
					   const struct packet *packet,
					   const struct packet *opposite)
{
	const struct next_hop *hop;
	struct nat_origin *origin;
	struct way way = {};
	struct ends ends;
	int reason;

	set_reply(&way, opposite);
	origin = bpf_map_lookup_elem(&nat_replies, &way.reply);
	if (!origin)
		origin = bpf_map_lookup_elem(&nat_replies_opening, &way.reply);
	if (!origin)
		return NOT_OURS;
	hop = client_hop(ctx, &origin->flow.client, packet->family);
	reason = obstacle(packet, hop);
	if (reason || !hop)
		return drop(origin->flow.service, reason);
	set_client_ends(&ends, origin);
	return send_error(ctx, packet, opposite, &ends, hop);
}

/* The way of a flow that has an entry and its port. */
static __always_inline int known_way(const struct packet *packet,
				     struct way *way)
{
	struct nat_origin *origin;
	struct nat_entry *entry;

	entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
	if (!entry)
		entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
	if (!entry || !set_backend(way, entry->backend, packet))
		return 0;
	way->reply.nat_port = entry->nat_port;
	origin = bpf_map_lookup_elem(&nat_replies, &way->reply);
	if (!origin)
		origin = bpf_map_lookup_elem(&nat_replies_opening, &way->reply);
	return origin && same_flow(&origin->flow, &way->flow);
}

/* About a packet from nat to a client: its backend has to know. */
static __always_inline int error_to_backend(struct xdp_md *ctx,
					    const struct packet *packet,
					    const struct packet *opposite,
					    __u32 service)
{
	const struct settings *settings = settings_now();
	const struct next_hop *hop;
	struct way way = {};
	struct ends ends;
	int reason;

	set_flow(&way, opposite, service);
	if (!settings || !known_way(opposite, &way))
		return NOT_OURS;
	hop = way_hop(ctx, &way);
	reason = obstacle(packet, hop);
	if (reason || !hop)
		return drop(service, reason);
	set_backend_ends(&ends, &way, nat_address(packet, settings));
	count_forwarded(way.backend, packet);
	return send_error(ctx, packet, opposite, &ends, hop);
}

/* About a packet from a backend of dsr or ipip, in the service's name. */
static __always_inline int error_to_sender(struct xdp_md *ctx,
					   struct packet *packet,
					   struct packet *opposite,
					   const struct service *service)
{
	const struct settings *settings = settings_now();
	__u32 backend;

	if (!settings)
		return NOT_OURS;
	backend = choose_backend(opposite, service, settings);
	packet->slot = opposite->slot;
	count(ICMP_FORWARDED);
	return forward_to(ctx, packet, service, backend, settings);
}

/* The packet at work is an ICMP error. */
__noinline int icmp_error_at_work(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();
	struct work *work = work_here();
	const struct service *service;
	struct packet *opposite;
	int verdict;

	if (!work || !settings)
		return NOT_OURS;
	opposite = &work->opposite;
	__builtin_memset(opposite, 0, sizeof(*opposite));
	if (read_quote(ctx, &work->packet, opposite) ||
	    !same_address(&work->packet.destination, &opposite->destination))
		return NOT_OURS;
	if (is_for_nat(opposite, settings)) {
		verdict = error_to_client(ctx, &work->packet, opposite);
		if (verdict != NOT_OURS)
			return verdict;
	}
	service = find_service(opposite, settings);
	if (!service)
		return NOT_OURS;
	if (service->forwarding == FORWARD_NAT)
		return error_to_backend(ctx, &work->packet, opposite,
					service->id);
	return error_to_sender(ctx, &work->packet, opposite, service);
}

/* NOT_OURS if it is about nothing of ours; it is as it was then. */
static __always_inline int icmp_error(struct xdp_md *ctx,
				      const struct packet *packet)
{
	struct work *work = work_here();

	if (!work || !is_error(packet) || packet->length > LONGEST_ERROR)
		return NOT_OURS;
	work->packet = *packet;
	return icmp_error_at_work(ctx);
}

#endif
