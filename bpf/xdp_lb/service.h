/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which service a packet is for: one look for what is not ours. */
#ifndef EBPF_FLEET_XDP_LB_SERVICE_H
#define EBPF_FLEET_XDP_LB_SERVICE_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "parse.h"

static __always_inline const struct service *
lookup_service(const struct packet *packet, __be16 port, __u8 protocol)
{
	struct service4 key4 = {
		.address = packet->destination.word[0],
		.port = port,
		.protocol = protocol,
	};
	struct service6 key6 = {
		.address = packet->destination,
		.port = port,
		.protocol = protocol,
	};

	if (packet->family == AF_INET)
		return bpf_map_lookup_elem(&services4, &key4);
	return bpf_map_lookup_elem(&services6, &key6);
}

static __always_inline const struct service *
find_service(const struct packet *packet, const struct settings *settings)
{
	const struct service *service;

	service = lookup_service(packet, packet->destination_port,
				 packet->protocol);
	if (!service && settings->flags & SETTINGS_ANY_PORT)
		service = lookup_service(packet, 0, packet->protocol);
	return service;
}

/*
 * Whether a packet may be an answer to one that nat has sent: to our own
 * address, and a port of ours or an error.
 */
static __always_inline int is_for_nat(const struct packet *packet,
				      const struct settings *settings)
{
	__u16 port = bpf_ntohs(packet->destination_port);

	if (packet->family == AF_INET) {
		if (!(settings->flags & SETTINGS_NAT4) ||
		    packet->destination.word[0] != settings->source4.word[0])
			return 0;
	} else {
		if (!(settings->flags & SETTINGS_NAT6) ||
		    !same_address(&packet->destination, &settings->source6))
			return 0;
	}
	if (is_icmp(packet))
		return !is_echo_request(packet);
	return port >= settings->nat_port_first &&
	       port <= settings->nat_port_last;
}

/* Whether the packet is for an address of ours. */
static __noinline int is_for_vip(const struct packet *packet)
{
	switch (packet->family) {
	case AF_INET:
		return lookup_service(packet, 0, IPPROTO_ICMP) != NULL;
	case AF_INET6:
		return lookup_service(packet, 0, IPPROTO_ICMPV6) != NULL;
	default:
		return 0;
	}
}

/* What parse() left alone counts as foreign, unless it is for one of ours. */
static __always_inline int refine(int reason, const struct packet *packet)
{
	if ((reason == PASS_OPTIONS || reason == PASS_FRAGMENT) &&
	    !is_for_vip(packet))
		return PASS_FOREIGN;
	return reason;
}

#endif
