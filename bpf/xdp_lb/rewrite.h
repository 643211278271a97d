/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What every router does to a header. */
#ifndef EBPF_FLEET_XDP_LB_REWRITE_H
#define EBPF_FLEET_XDP_LB_REWRITE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>

#include "checksum.h"
#include "parse.h"

#define DEFAULT_TTL 64

/* The complement of 0x0100, which one less in the upper byte takes away. */
#define ONE_HOP_LESS bpf_htons(0xfeff)

/* The packet's IP header, if all of it is there. */
#define IP_HEADER(ctx, type)                                                   \
	({                                                                     \
		type *header_ = (void *)(long)(ctx)->data + ETH_HLEN;          \
		(void *)(header_ + 1) > (void *)(long)(ctx)->data_end          \
			? NULL                                                 \
			: header_;                                             \
	})

static __always_inline void decrement_ttl(struct xdp_md *ctx,
					  const struct packet *packet)
{
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;

	if (packet->family == AF_INET) {
		ipv4 = IP_HEADER(ctx, struct iphdr);
		if (!ipv4)
			return;
		ipv4->ttl--;
		checksum_add(&ipv4->check, ONE_HOP_LESS);
	} else {
		ipv6 = IP_HEADER(ctx, struct ipv6hdr);
		if (ipv6)
			ipv6->hop_limit--;
	}
}

/* Back to where it came from. */
static __always_inline int reflect(struct xdp_md *ctx)
{
	struct ethhdr *ethernet = (void *)(long)ctx->data;
	__u8 station[ETH_ALEN];

	if ((void *)(ethernet + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memcpy(station, ethernet->h_dest, ETH_ALEN);
	__builtin_memcpy(ethernet->h_dest, ethernet->h_source, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, station, ETH_ALEN);
	return XDP_TX;
}

#endif
