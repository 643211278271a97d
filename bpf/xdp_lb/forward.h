/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * dsr and ipip: the packet goes to its backend as the client sent it, and the
 * backend answers the client itself.
 */
#ifndef EBPF_FLEET_XDP_LB_FORWARD_H
#define EBPF_FLEET_XDP_LB_FORWARD_H

#include <linux/bpf.h>

#include "count.h"
#include "encapsulate.h"
#include "icmp.h"
#include "maps.h"
#include "moved.h"
#include "next_hop.h"
#include "parse.h"
#include "rewrite.h"
#include "ring.h"

/* The id of a flow's backend; 0: there is none. */
static __always_inline __u32 choose_backend(struct packet *packet,
					    const struct service *service,
					    const struct settings *settings)
{
	const struct ring *ring = find_ring(service->id);
	const struct slot *slot;

	if (!ring)
		return 0;
	packet->slot = slot_index(packet, service);
	slot = ring_slot(ring, packet->slot);
	if (!slot)
		return 0;
	if (!slot->previous)
		return slot->backend;
	return moved_backend(packet, service, slot, ring->moved, settings);
}

/* id: of the backend */
static __always_inline int forward_to(struct xdp_md *ctx,
				      const struct packet *packet,
				      const struct service *service, __u32 id,
				      const struct settings *settings)
{
	const struct backend *backend = usable_backend(id, service->id);
	int is_ipip = service->forwarding == FORWARD_IPIP;
	const struct next_hop *hop;
	__u32 longer;

	if (!backend)
		return drop(service->id, DROP_NO_BACKEND);
	if (packet->ttl <= 1)
		return drop(service->id, DROP_TTL);
	hop = backend_hop(ctx, id, backend);
	if (!hop)
		return drop(service->id, DROP_NO_BACKEND);
	if (hop->error)
		return drop(service->id, hop->error);
	/* A router on the way would send it back to us. */
	if (!is_ipip && hop->routed)
		return drop(service->id, DROP_NO_ROUTE);
	longer = is_ipip ? encapsulation(backend) : 0;
	if (packet->length + longer > hop->mtu)
		return too_big(ctx, packet, hop->mtu - longer);
	decrement_ttl(ctx, packet);
	if (is_ipip && encapsulate(ctx, packet, backend, settings))
		return drop(service->id, DROP_NO_ROOM);
	count_forwarded(id, packet);
	return transmit(ctx, hop);
}

static __always_inline int forward(struct xdp_md *ctx, struct packet *packet,
				   const struct service *service,
				   const struct settings *settings)
{
	__u32 id = choose_backend(packet, service, settings);

	return forward_to(ctx, packet, service, id, settings);
}

#endif
