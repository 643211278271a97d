// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Layer-4 load balancer: what comes to a service's address goes to one of its
 * backends, before the host's stack sees it. What is not ours is passed on
 * untouched.
 *
 * A flow's hash names a slot of the service's ring, the slot a backend, and the
 * routing tables, asked a few times a second, the next hop: no state per flow
 * and no clock per packet. Only flows in slots that have moved, until their
 * connections have ended, and nat need tables.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "count.h"
#include "forward.h"
#include "icmp.h"
#include "icmp_error.h"
#include "maps.h"
#include "nat.h"
#include "parse.h"
#include "service.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/*
 * For libxdp's dispatcher: where in a chain this program stands, and that the
 * next one sees what it passes.
 */
struct {
	__uint(priority, 10);
	__uint(XDP_PASS, 1);
} _xdp_lb SEC(".xdp_run_config");

static __always_inline int control(struct xdp_md *ctx, struct packet *packet)
{
	int verdict;

	if (!is_icmp(packet))
		return pass(PASS_FOREIGN);
	if (is_echo_request(packet))
		return echo_reply(ctx, packet);
	verdict = icmp_error(ctx, packet);
	return verdict == NOT_OURS ? pass(PASS_ICMP) : verdict;
}

SEC("xdp")
int xdp_lb(struct xdp_md *ctx)
{
	const struct settings *settings = settings_now();
	const struct service *service;
	struct packet packet;
	int reason, verdict;

	if (!settings || settings->layout != LAYOUT)
		return pass(PASS_NOT_CONFIGURED);
	reason = parse(ctx, &packet);
	if (reason != PARSED)
		return pass(refine(reason, &packet, settings));
	if (is_for_nat(&packet, settings)) {
		verdict = is_icmp(&packet) ? icmp_error(ctx, &packet)
					   : nat_to_client(ctx, &packet);
		if (verdict != NOT_OURS)
			return verdict;
	}
	service = find_service(&packet, settings);
	if (!service)
		return pass(PASS_FOREIGN);
	switch (service->forwarding) {
	case FORWARD_NONE:
		return control(ctx, &packet);
	case FORWARD_NAT:
		return nat_to_backend(ctx, &packet, service, settings);
	default:
		return forward(ctx, &packet, service, settings);
	}
}
