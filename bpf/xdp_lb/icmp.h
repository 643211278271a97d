/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the balancer itself says: echo replies, and that a packet is too big. */
#ifndef EBPF_FLEET_XDP_LB_ICMP_H
#define EBPF_FLEET_XDP_LB_ICMP_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/icmpv6.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "checksum.h"
#include "count.h"
#include "encapsulate.h"
#include "parse.h"
#include "rewrite.h"

/* How much of a packet an error quotes, from the IP header on. */
#define QUOTED 128

/*
 * Source and destination change places, which no checksum notices. IPv4 has the
 * time to live in its own. These are global functions, and take nothing but
 * numbers, so that the verifier walks them once and for all.
 */
static __always_inline int echo_back(struct xdp_md *ctx,
				     struct icmp_header *icmp, __u8 reply)
{
	checksum_add(&icmp->checksum, difference16(bpf_htons(icmp->type << 8),
						   bpf_htons(reply << 8)));
	icmp->type = reply;
	count(ECHO_REPLIED);
	return reflect(ctx);
}

__noinline int echo_ipv4(struct xdp_md *ctx)
{
	struct iphdr *ip = IP_HEADER(ctx, struct iphdr);
	struct icmp_header *icmp = (void *)(ip + 1);
	__be32 client;

	if (!ip || (void *)(icmp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	checksum_add(&ip->check, difference16(bpf_htons(ip->ttl << 8),
					      bpf_htons(DEFAULT_TTL << 8)));
	ip->ttl = DEFAULT_TTL;
	client = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	return echo_back(ctx, icmp, ICMP_ECHOREPLY);
}

__noinline int echo_ipv6(struct xdp_md *ctx, __u32 offset)
{
	struct ipv6hdr *ip = IP_HEADER(ctx, struct ipv6hdr);
	struct icmp_header *icmp;
	struct in6_addr client;

	icmp = (void *)(long)ctx->data + (offset & (MAX_HEADERS - 1));
	if (!ip || (void *)(icmp + 1) > (void *)(long)ctx->data_end)
		return XDP_PASS;
	ip->hop_limit = DEFAULT_TTL;
	client = ip->saddr;
	ip->saddr = ip->daddr;
	ip->daddr = client;
	return echo_back(ctx, icmp, ICMPV6_ECHO_REPLY);
}

static __always_inline int echo_reply(struct xdp_md *ctx,
				      const struct packet *packet)
{
	return packet->family == AF_INET ? echo_ipv4(ctx)
					 : echo_ipv6(ctx, packet->transport);
}

/* Cut the packet to what is quoted and make room for a header before it. */
static __always_inline int quote(struct xdp_md *ctx, int header)
{
	int length = (long)ctx->data_end - (long)ctx->data;
	struct ethhdr *old, *new;

	if (length < ETH_HLEN + QUOTED ||
	    bpf_xdp_adjust_tail(ctx, ETH_HLEN + QUOTED - length) ||
	    bpf_xdp_adjust_head(ctx, -header))
		return -1;
	new = (void *)(long)ctx->data;
	old = (void *)new + header;
	if ((void *)(old + 1) > (void *)(long)ctx->data_end)
		return -1;
	__builtin_memcpy(new, old, sizeof(*new));
	return 0;
}

struct error_ipv4 {
	struct iphdr ip;
	struct icmp_header icmp;
	__u8 quoted[QUOTED];
};

struct error_ipv6 {
	struct ipv6hdr ip;
	struct icmp_header icmp;
	__u8 quoted[QUOTED];
};

/* The header of an error, with the sum over it and what it quotes. */
static __always_inline void seal(struct icmp_header *icmp, __u8 type, __u8 code,
				 __u32 mtu, sum_t pseudo_header)
{
	icmp->type = type;
	icmp->code = code;
	icmp->checksum = 0;
	icmp->data = bpf_htonl(mtu);
	icmp->checksum = ~fold(pseudo_header +
			       (__u32)bpf_csum_diff(NULL, 0, (void *)icmp,
						    sizeof(*icmp) + QUOTED, 0));
}

static __always_inline int not_sent(void)
{
	count(DROP_NO_ROOM);
	return XDP_DROP;
}

__noinline int too_big_ipv4(struct xdp_md *ctx, __u32 mtu)
{
	const int header = sizeof(struct iphdr) + sizeof(struct icmp_header);
	struct error_ipv4 *error;
	struct iphdr *quoted;

	if (quote(ctx, header))
		return not_sent();
	error = IP_HEADER(ctx, struct error_ipv4);
	if (!error)
		return not_sent();
	quoted = (struct iphdr *)error->quoted;
	write_ipv4(&error->ip, 0, sizeof(*error), IPPROTO_ICMP, quoted->daddr,
		   quoted->saddr);
	seal(&error->icmp, ICMP_DEST_UNREACH, ICMP_FRAG_NEEDED, mtu, 0);
	count(TOO_BIG_SENT);
	return reflect(ctx);
}

__noinline int too_big_ipv6(struct xdp_md *ctx, __u32 mtu)
{
	const int header = sizeof(struct ipv6hdr) + sizeof(struct icmp_header);
	const int length = sizeof(struct icmp_header) + QUOTED;
	struct address client, vip;
	struct error_ipv6 *error;
	struct ipv6hdr *quoted;
	sum_t pseudo_header;

	if (quote(ctx, header))
		return not_sent();
	error = IP_HEADER(ctx, struct error_ipv6);
	if (!error)
		return not_sent();
	quoted = (struct ipv6hdr *)error->quoted;
	__builtin_memcpy(&client, &quoted->saddr, sizeof(client));
	__builtin_memcpy(&vip, &quoted->daddr, sizeof(vip));
	write_ipv6(&error->ip, 0, 0, length, IPPROTO_ICMPV6, &vip, &client);
	pseudo_header = sum_address(&client) + sum_address(&vip) +
			bpf_htons(length) + bpf_htons(IPPROTO_ICMPV6);
	seal(&error->icmp, ICMPV6_PKT_TOOBIG, 0, mtu, pseudo_header);
	count(TOO_BIG_SENT);
	return reflect(ctx);
}

/* mtu: the longest packet that would have gone through, from the IP header */
static __always_inline int too_big(struct xdp_md *ctx,
				   const struct packet *packet, __u32 mtu)
{
	return packet->family == AF_INET ? too_big_ipv4(ctx, mtu)
					 : too_big_ipv6(ctx, mtu);
}

#endif
