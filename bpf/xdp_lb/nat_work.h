/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What needs more than a look at a table is done by functions that the verifier
 * sees once, not once for each way to reach them: global ones, whose arguments
 * are the context and numbers alone (before 5.12). The rest they find here.
 */
#ifndef EBPF_FLEET_XDP_LB_NAT_WORK_H
#define EBPF_FLEET_XDP_LB_NAT_WORK_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "parse.h"

/* A flow and what it becomes. */
struct way {
	struct flow flow;
	struct nat_reply reply;
	__u32 backend; /* id */
};

struct work {
	struct packet packet;
	struct packet opposite; /* see icmp_quote.h */
	struct service service;
	struct way way;
	struct nat_origin origin;
};

/* The packet of this CPU. The data plane's own. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} work SEC(".maps");

static __always_inline struct work *work_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&work, &zero);
}

#endif
