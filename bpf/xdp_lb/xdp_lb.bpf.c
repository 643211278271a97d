// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Layer-4 load balancer: what comes to a service's address goes to one of its
 * backends, before the host's stack sees it. What is not ours is passed on
 * untouched.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "count.h"
#include "icmp_error.h"
#include "maps.h"
#include "nat.h"
#include "next_hop.h"
#include "parse.h"
#include "ring.h"
#include "service.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();
	const struct service *service;
	struct packet packet;
	int reason;

	if (!settings || settings->layout != LAYOUT)
		return pass(PASS_NOT_CONFIGURED);
	reason = parse(ctx, &packet);
	if (reason != PARSED)
		return pass(is_for_vip(&packet) ? reason : PASS_FOREIGN);
	service = find_service(&packet, settings);
	if (!service)
		return pass(PASS_FOREIGN);
	switch (service->forwarding) {
	case FORWARD_NAT:
		return nat_to_backend(ctx, &packet, service, settings);
	case FORWARD_NONE:
		return icmp_error(ctx, &packet, settings);
	default:
		return pass(PASS_FOREIGN);
	}
}
