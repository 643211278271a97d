/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What an ICMP error quotes: the beginning of the packet that it is about, as
 * it was sent from here. Everything about its flow is kept by what comes the
 * other way, so it is read as its opposite, with the ends exchanged.
 */
#ifndef EBPF_FLEET_XDP_LB_ICMP_QUOTE_H
#define EBPF_FLEET_XDP_LB_ICMP_QUOTE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>

#include "checksum.h"
#include "nat_rewrite.h"
#include "parse.h"

#define IP_OFFSET 0x1fff /* of frag_off; RFC 791 */
/* No error is longer: RFC 4443. RFC 1812 has 576 for IPv4. */
#define LONGEST_ERROR 1280

/* As much of TCP and UDP as every error quotes: RFC 792 */
struct quoted_transport {
	__be16 source;
	__be16 destination;
	__be16 length; /* of UDP */
	__sum16 udp_checksum;
};

static __always_inline int is_error(const struct packet *packet)
{
	if (packet->family == AF_INET6) /* the upper half informs */
		return packet->icmp_type && packet->icmp_type < 128;
	return packet->icmp_type == ICMP_DEST_UNREACH ||
	       packet->icmp_type == ICMP_TIME_EXCEEDED ||
	       packet->icmp_type == ICMP_PARAMETERPROB;
}

/* Where it begins. As in transport(), the verifier has to be told its bound. */
static __always_inline __u64 quote_offset(const struct packet *packet)
{
	__u64 offset = packet->transport;

	asm volatile("%0 &= %1" : "+r"(offset) : "i"(MAX_HEADERS - 1));
	return offset + sizeof(struct icmp_header);
}

/* The quoted IP header, if size bytes of it are there. */
static __always_inline void *
quoted_header(struct xdp_md *ctx, const struct packet *packet, int size)
{
	void *header = (void *)(long)ctx->data + quote_offset(packet);

	return header + size > (void *)(long)ctx->data_end ? NULL : header;
}

static __always_inline int quoted_ipv4(struct xdp_md *ctx,
				       const struct packet *packet,
				       struct packet *opposite)
{
	struct iphdr *ip = quoted_header(ctx, packet, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl * 4 != sizeof(*ip) ||
	    ip->frag_off & bpf_htons(IP_OFFSET))
		return -1;
	opposite->source.word[0] = ip->daddr;
	opposite->destination.word[0] = ip->saddr;
	opposite->protocol = ip->protocol;
	opposite->transport =
		packet->transport + sizeof(struct icmp_header) + sizeof(*ip);
	return 0;
}

static __always_inline int quoted_ipv6(struct xdp_md *ctx,
				       const struct packet *packet,
				       struct packet *opposite)
{
	struct ipv6hdr *ip = quoted_header(ctx, packet, sizeof(*ip));
	int walked;

	if (!ip || ip->version != 6)
		return -1;
	__builtin_memcpy(&opposite->source, &ip->daddr, sizeof(ip->daddr));
	__builtin_memcpy(&opposite->destination, &ip->saddr, sizeof(ip->saddr));
	walked = skip_extensions(ctx, quote_offset(packet) + sizeof(*ip),
				 ip->nexthdr);
	if (walked < 0)
		return -1;
	opposite->protocol = walked & 0xff;
	opposite->transport = walked >> 8;
	return 0;
}

/* Whether it quotes so much; what follows an error in its frame is padding. */
static __always_inline int quotes(const struct packet *packet,
				  const struct packet *opposite, __u32 size)
{
	return opposite->transport + size <= ETH_HLEN + packet->length;
}

/* 0, or the error quotes no packet that a flow could be known by. */
static __always_inline int read_quote(struct xdp_md *ctx,
				      const struct packet *packet,
				      struct packet *opposite)
{
	struct quoted_transport *ports;

	opposite->family = packet->family;
	opposite->tcp_flags = TCP_ACK;
	if (packet->family == AF_INET ? quoted_ipv4(ctx, packet, opposite)
				      : quoted_ipv6(ctx, packet, opposite))
		return -1;
	if (opposite->protocol != IPPROTO_TCP &&
	    opposite->protocol != IPPROTO_UDP)
		return -1;
	ports = transport(ctx, opposite, sizeof(*ports));
	if (!ports || !quotes(packet, opposite, sizeof(*ports)))
		return -1;
	opposite->source_port = ports->destination;
	opposite->destination_port = ports->source;
	return 0;
}

/* As it changes, by what the sum over a message changes that contains it. */
static __always_inline sum_t change16(__be16 *word, __be16 to)
{
	__be16 from = *word;

	*word = to;
	return difference16(from, to);
}

/* The TCP checksum lies where few errors still quote. */
static __always_inline sum_t rewrite_quoted_tcp(struct xdp_md *ctx,
						const struct packet *packet,
						const struct packet *opposite,
						sum_t difference)
{
	const int size = offsetof(struct tcphdr, check) + sizeof(__sum16);
	struct tcphdr *tcp = transport(ctx, opposite, size);
	__sum16 checksum;

	if (!tcp || !quotes(packet, opposite, size))
		return 0;
	checksum = tcp->check;
	checksum_add(&checksum, difference);
	return change16(&tcp->check, checksum);
}

/*
 * The quoted packet as the other end knows it, if the opposite one is to say
 * what ends do. By what that changes the sum over the message.
 */
static __always_inline sum_t rewrite_quote(struct xdp_md *ctx,
					   const struct packet *packet,
					   const struct packet *opposite,
					   const struct ends *ends)
{
	sum_t addresses =
		difference_address(&opposite->source, ends->source) +
		difference_address(&opposite->destination, ends->destination);
	struct quoted_transport *ports;
	sum_t difference = addresses;
	struct ipv6hdr *ipv6;
	struct iphdr *ipv4;
	__sum16 checksum;

	if (packet->family == AF_INET) {
		ipv4 = quoted_header(ctx, packet, sizeof(*ipv4));
		if (!ipv4)
			return 0;
		ipv4->saddr = ends->destination->word[0];
		ipv4->daddr = ends->source->word[0];
		checksum = ipv4->check;
		checksum_add(&checksum, addresses);
		difference += change16(&ipv4->check, checksum);
	} else {
		ipv6 = quoted_header(ctx, packet, sizeof(*ipv6));
		if (!ipv6)
			return 0;
		__builtin_memcpy(&ipv6->saddr, ends->destination,
				 sizeof(ipv6->saddr));
		__builtin_memcpy(&ipv6->daddr, ends->source,
				 sizeof(ipv6->daddr));
	}
	ports = transport(ctx, opposite, sizeof(*ports));
	if (!ports)
		return difference;
	addresses += difference16(ports->source, ends->destination_port) +
		     difference16(ports->destination, ends->source_port);
	difference += change16(&ports->source, ends->destination_port) +
		      change16(&ports->destination, ends->source_port);
	if (opposite->protocol == IPPROTO_TCP)
		return difference +
		       rewrite_quoted_tcp(ctx, packet, opposite, addresses);
	checksum = ports->udp_checksum;
	checksum_add_udp(&checksum, addresses);
	return difference + change16(&ports->udp_checksum, checksum);
}

/* The error itself, and what it quotes. */
static __always_inline void translate_error(struct xdp_md *ctx,
					    const struct packet *packet,
					    const struct packet *opposite,
					    const struct ends *ends)
{
	sum_t difference = rewrite_quote(ctx, packet, opposite, ends);
	sum_t addresses = rewrite_addresses(ctx, packet, ends);
	struct icmp_header *icmp = transport(ctx, packet, sizeof(*icmp));

	if (packet->family == AF_INET6) /* its pseudo header */
		difference += addresses;
	if (icmp)
		checksum_add(&icmp->checksum, difference);
}

#endif
