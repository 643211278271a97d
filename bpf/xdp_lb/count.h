/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of packets, counted. */
#ifndef EBPF_FLEET_XDP_LB_COUNT_H
#define EBPF_FLEET_XDP_LB_COUNT_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "parse.h"

static __always_inline void count(enum reason reason)
{
	__u64 *counter = bpf_map_lookup_elem(&reasons, &reason);

	if (counter)
		*counter += 1;
}

static __always_inline int pass(enum reason reason)
{
	count(reason);
	return XDP_PASS;
}

/* service: its id */
static __always_inline int drop(__u32 service, enum reason reason)
{
	struct service_counters *counters;

	counters = bpf_map_lookup_elem(&service_counters, &service);
	if (counters)
		counters->dropped++;
	count(reason);
	return XDP_DROP;
}

/* backend: its id */
static __always_inline void count_forwarded(__u32 backend,
					    const struct packet *packet)
{
	struct backend_counters *counters;

	counters = bpf_map_lookup_elem(&backend_counters, &backend);
	if (!counters)
		return;
	counters->packets++;
	counters->bytes += packet->length;
	if (is_first_syn(packet))
		counters->connections++;
}

#endif
