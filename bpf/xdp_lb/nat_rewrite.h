/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Other addresses and ports in a packet, and its checksums after them. */
#ifndef EBPF_FLEET_XDP_LB_NAT_REWRITE_H
#define EBPF_FLEET_XDP_LB_NAT_REWRITE_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "checksum.h"
#include "parse.h"
#include "rewrite.h"

/* What a packet shall say. */
struct ends {
	const struct address *source;
	const struct address *destination;
	__be16 source_port;
	__be16 destination_port;
};

/* Of the packet's own IP header; what that does to the sums over it. */
static __always_inline sum_t rewrite_addresses(struct xdp_md *ctx,
					       const struct packet *packet,
					       const struct ends *ends)
{
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;
	sum_t difference;

	if (packet->family == AF_INET) {
		ipv4 = IP_HEADER(ctx, struct iphdr);
		if (!ipv4)
			return 0;
		difference = difference32(packet->source.word[0],
					  ends->source->word[0]) +
			     difference32(packet->destination.word[0],
					  ends->destination->word[0]);
		ipv4->saddr = ends->source->word[0];
		ipv4->daddr = ends->destination->word[0];
		ipv4->ttl--;
		checksum_add(&ipv4->check, difference + ONE_HOP_LESS);
		return difference;
	}
	ipv6 = IP_HEADER(ctx, struct ipv6hdr);
	if (!ipv6)
		return 0;
	__builtin_memcpy(&ipv6->saddr, ends->source, sizeof(ipv6->saddr));
	__builtin_memcpy(&ipv6->daddr, ends->destination, sizeof(ipv6->daddr));
	ipv6->hop_limit--;
	return difference_address(&packet->source, ends->source) +
	       difference_address(&packet->destination, ends->destination);
}

/* Of a TCP or UDP packet; one hop less, too. */
static __always_inline void translate(struct xdp_md *ctx,
				      const struct packet *packet,
				      const struct ends *ends)
{
	sum_t difference = rewrite_addresses(ctx, packet, ends);
	struct tcphdr *tcp;
	struct udphdr *udp;

	difference +=
		difference16(packet->source_port, ends->source_port) +
		difference16(packet->destination_port, ends->destination_port);
	if (packet->protocol == IPPROTO_TCP) {
		tcp = transport(ctx, packet, sizeof(*tcp));
		if (!tcp)
			return;
		tcp->source = ends->source_port;
		tcp->dest = ends->destination_port;
		checksum_add(&tcp->check, difference);
	} else {
		udp = transport(ctx, packet, sizeof(*udp));
		if (!udp)
			return;
		udp->source = ends->source_port;
		udp->dest = ends->destination_port;
		checksum_add_udp(&udp->check, difference);
	}
}

#endif
