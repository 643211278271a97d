/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Network address translation. */
#ifndef EBPF_FLEET_XDP_LB_NAT_H
#define EBPF_FLEET_XDP_LB_NAT_H

#include <linux/bpf.h>

#include "count.h"
#include "maps.h"
#include "parse.h"

#define NOT_OURS -1

/* To be written. */
static __always_inline int nat_to_backend(struct xdp_md *ctx,
					  const struct packet *packet,
					  const struct service *service,
					  const struct settings *settings)
{
	(void)ctx, (void)packet, (void)settings;
	return drop(service->id, DROP_NO_CONNECTION);
}

static __always_inline int nat_to_client(struct xdp_md *ctx,
					 const struct packet *packet,
					 const struct settings *settings)
{
	(void)ctx, (void)packet, (void)settings;
	return NOT_OURS;
}

#endif
