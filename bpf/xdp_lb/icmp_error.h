/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ICMP errors, routed by the packet they quote. */
#ifndef EBPF_FLEET_XDP_LB_ICMP_ERROR_H
#define EBPF_FLEET_XDP_LB_ICMP_ERROR_H

#include <linux/bpf.h>

#include "count.h"
#include "maps.h"
#include "nat.h"
#include "parse.h"

/* To be written. */
static __always_inline int icmp_error(struct xdp_md *ctx,
				      const struct packet *packet,
				      const struct settings *settings)
{
	(void)ctx, (void)packet, (void)settings;
	return NOT_OURS;
}

#endif
