/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A packet within a packet: RFC 2003 and RFC 2473. The outer traffic class is
 * the inner one, so that congestion marks and priorities are seen on the way.
 */
#ifndef EBPF_FLEET_XDP_LB_ENCAPSULATE_H
#define EBPF_FLEET_XDP_LB_ENCAPSULATE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "maps.h"
#include "parse.h"
#include "rewrite.h"

#define IPV4_VERSION_IHL 0x45
#define IPV6_VERSION	 6
#define IP_DONT_FRAGMENT 0x4000

static __always_inline __u32 encapsulation(const struct backend *backend)
{
	return backend->family == AF_INET ? sizeof(struct iphdr)
					  : sizeof(struct ipv6hdr);
}

static __always_inline __u8 inner_protocol(const struct packet *packet)
{
	return packet->family == AF_INET ? IPPROTO_IPIP : IPPROTO_IPV6;
}

/* A header without options at ip, with its checksum. */
static __always_inline void write_ipv4(struct iphdr *ip, __u8 tos, __u16 length,
				       __u8 protocol, __be32 source,
				       __be32 destination)
{
	__be16 *words = (__be16 *)ip;

	words[0] = bpf_htons(IPV4_VERSION_IHL << 8 | tos);
	ip->tot_len = bpf_htons(length);
	ip->id = 0; /* atomic: RFC 6864 */
	ip->frag_off = bpf_htons(IP_DONT_FRAGMENT);
	words[4] = bpf_htons(DEFAULT_TTL << 8 | protocol);
	ip->saddr = source;
	ip->daddr = destination;
	ip->check = ~fold((sum_t)words[0] + ip->tot_len + ip->frag_off +
			  words[4] + source + destination);
}

static __always_inline void write_ipv6(struct ipv6hdr *ip, __u32 flow_label,
				       __u8 tos, __u16 length, __u8 protocol,
				       const struct address *source,
				       const struct address *destination)
{
	*(__be32 *)ip = bpf_htonl((__u32)IPV6_VERSION << 28 | (__u32)tos << 20 |
				  flow_label);
	ip->payload_len = bpf_htons(length);
	ip->nexthdr = protocol;
	ip->hop_limit = DEFAULT_TTL;
	__builtin_memcpy(&ip->saddr, source, sizeof(*source));
	__builtin_memcpy(&ip->daddr, destination, sizeof(*destination));
}

/* Nonzero: there is no headroom. That the MTU allows it has been seen to. */
static __always_inline int encapsulate(struct xdp_md *ctx,
				       const struct packet *packet,
				       const struct backend *backend,
				       const struct settings *settings)
{
	int is_ipv4 = backend->family == AF_INET;
	struct ethhdr *ethernet;
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;

	if (bpf_xdp_adjust_head(ctx, is_ipv4 ? -(int)sizeof(*ipv4)
					     : -(int)sizeof(*ipv6)))
		return -1;
	ethernet = (void *)(long)ctx->data;
	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return -1;
	if (is_ipv4) {
		ipv4 = IP_HEADER(ctx, struct iphdr);
		if (!ipv4)
			return -1;
		ethernet->h_proto = bpf_htons(ETH_P_IP);
		write_ipv4(ipv4, packet->tos, packet->length + sizeof(*ipv4),
			   inner_protocol(packet), settings->source4.word[0],
			   backend->address.word[0]);
	} else {
		ipv6 = IP_HEADER(ctx, struct ipv6hdr);
		if (!ipv6)
			return -1;
		ethernet->h_proto = bpf_htons(ETH_P_IPV6);
		/* the label spreads a tunnel's flows over paths: RFC 6438 */
		write_ipv6(ipv6, packet->slot, packet->tos, packet->length,
			   inner_protocol(packet), &settings->source6,
			   &backend->address);
	}
	return 0;
}

#endif
