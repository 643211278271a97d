/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which backend a flow's hash names. */
#ifndef EBPF_FLEET_XDP_LB_RING_H
#define EBPF_FLEET_XDP_LB_RING_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "hash.h"
#include "maps.h"
#include "parse.h"

static __always_inline __u32 slot_index(const struct packet *packet,
					const struct service *service)
{
	__be16 port = packet->source_port;
	__u64 hash;

	if (service->flags & SERVICE_BY_SOURCE)
		port = 0;
	hash = hash_address(&packet->source, port, packet->family == AF_INET6);
	return hash * RING_SLOTS >> 32;
}

/* NULL: the service has none */
static __always_inline const struct ring *find_ring(__u32 service)
{
	void *map = bpf_map_lookup_elem(&rings, &service);
	__u32 zero = 0;

	return map ? bpf_map_lookup_elem(map, &zero) : NULL;
}

static __always_inline const struct slot *ring_slot(const struct ring *ring,
						    __u32 index)
{
	return index < RING_SLOTS ? &ring->slots[index] : NULL;
}

/* The backend of that id, if packets of that service may go there. */
static __always_inline const struct backend *usable_backend(__u32 id,
							    __u32 service)
{
	const struct backend *backend = bpf_map_lookup_elem(&backends, &id);

	if (!backend || !backend->family || backend->service != service ||
	    backend->state == BACKEND_DISABLED)
		return NULL;
	return backend;
}

#endif
