/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a packet is: a cursor moves over its headers. Nothing is changed. */
#ifndef EBPF_FLEET_XDP_LB_PARSE_H
#define EBPF_FLEET_XDP_LB_PARSE_H

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

#define PARSED		  REASONS /* no reason to leave it alone */
#define IP_MORE_OR_OFFSET 0x3fff /* of frag_off; RFC 791 */
#define TCP_FIN		  0x01
#define TCP_SYN		  0x02
#define TCP_RST		  0x04
#define TCP_ACK		  0x10
#define MAX_EXTENSIONS	  6
/* Offsets into a packet stay below this power of two: see transport(). */
#define MAX_HEADERS 512

/* <linux/icmp.h> wants the C library. RFC 792 */
#define ICMP_ECHOREPLY	   0
#define ICMP_DEST_UNREACH  3
#define ICMP_FRAG_NEEDED   4 /* a code of it */
#define ICMP_ECHO	   8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETERPROB 12

struct icmp_header { /* ICMPv6's too */
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be32 data; /* an echo's id and number, or the MTU */
};

struct packet {
	struct address source;
	struct address destination;
	__be16 source_port; /* ICMP: 0 */
	__be16 destination_port;
	__u16 length; /* from the IP header on, by what it says; bytes */
	__u16 transport; /* offset of the TCP, UDP or ICMP header */
	__u32 slot; /* of the service's ring, once it has been chosen */
	__u8 family; /* AF_INET, AF_INET6 */
	__u8 protocol; /* IPPROTO_TCP, _UDP, _ICMP, _ICMPV6 */
	__u8 ttl; /* or hop limit */
	__u8 tcp_flags; /* TCP_*; UDP, ICMP: 0 */
	__u8 icmp_type;
	__u8 tos; /* or traffic class */
};

struct cursor {
	void *data;
	void *end;
	__u32 offset; /* from data, below MAX_HEADERS */
};

/* Whether the packet ends before what the pointer is one past of. */
static __always_inline int beyond(const struct cursor *cursor, const void *past)
{
	return past > cursor->end;
}

/* The header there; the caller looks whether all of it is. */
static __always_inline void *at(const struct cursor *cursor)
{
	return cursor->data + cursor->offset;
}

/*
 * Where the transport header of a packet that was parsed is, or NULL if fewer
 * than size bytes of it are there. The verifier forgets the bound of an offset
 * that it meets in memory.
 */
static __always_inline void *transport(struct xdp_md *ctx,
				       const struct packet *packet, int size)
{
	__u64 offset = packet->transport;
	void *header;

	asm volatile("%0 &= %1" : "+r"(offset) : "i"(MAX_HEADERS - 1));
	header = (void *)(long)ctx->data + offset;
	return header + size > (void *)(long)ctx->data_end ? NULL : header;
}

static __always_inline int same_address(const struct address *one,
					const struct address *other)
{
	const __u64 *a = (const __u64 *)one;
	const __u64 *b = (const __u64 *)other;

	return a[0] == b[0] && a[1] == b[1];
}

static __always_inline int is_icmp(const struct packet *packet)
{
	return packet->protocol == IPPROTO_ICMP ||
	       packet->protocol == IPPROTO_ICMPV6;
}

static __always_inline int is_echo_request(const struct packet *packet)
{
	return packet->icmp_type ==
	       (packet->family == AF_INET ? ICMP_ECHO : ICMPV6_ECHO_REQUEST);
}

static __always_inline int is_first_syn(const struct packet *packet)
{
	return (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline int parse_tcp(struct cursor *cursor,
				     struct packet *packet, __u32 length)
{
	struct tcphdr *tcp = at(cursor);

	if (beyond(cursor, tcp + 1) || tcp->doff * 4 < sizeof(*tcp) ||
	    tcp->doff * 4 > length)
		return PASS_MALFORMED;
	packet->source_port = tcp->source;
	packet->destination_port = tcp->dest;
	packet->tcp_flags = ((__u8 *)tcp)[13];
	return PARSED;
}

static __always_inline int parse_udp(struct cursor *cursor,
				     struct packet *packet, __u32 length)
{
	struct udphdr *udp = at(cursor);

	if (beyond(cursor, udp + 1) || bpf_ntohs(udp->len) < sizeof(*udp) ||
	    bpf_ntohs(udp->len) > length)
		return PASS_MALFORMED;
	packet->source_port = udp->source;
	packet->destination_port = udp->dest;
	return PARSED;
}

static __always_inline int parse_icmp(struct cursor *cursor,
				      struct packet *packet, __u32 length)
{
	struct icmp_header *icmp = at(cursor);

	if (beyond(cursor, icmp + 1) || length < sizeof(*icmp))
		return PASS_MALFORMED;
	packet->icmp_type = icmp->type;
	return PARSED;
}

static __always_inline int parse_transport(struct cursor *cursor,
					   struct packet *packet)
{
	__u32 headers = cursor->offset - sizeof(struct ethhdr);
	__u32 length = packet->length - headers;

	if (packet->length < headers)
		return PASS_MALFORMED;
	packet->transport = cursor->offset;
	switch (packet->protocol) {
	case IPPROTO_TCP:
		return parse_tcp(cursor, packet, length);
	case IPPROTO_UDP:
		return parse_udp(cursor, packet, length);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return parse_icmp(cursor, packet, length);
	default:
		return PASS_FOREIGN;
	}
}

/* A length field may leave Ethernet padding over, but not reach beyond it. */
static __always_inline int length_lies(const struct cursor *cursor,
				       __u32 length)
{
	return length + cursor->offset > cursor->end - cursor->data;
}

static __always_inline int parse_ipv4(struct cursor *cursor,
				      struct packet *packet)
{
	struct iphdr *ip = at(cursor);
	__u32 length;

	if (beyond(cursor, ip + 1) || ip->version != 4)
		return PASS_MALFORMED;
	packet->family = AF_INET;
	packet->source = (struct address){{ip->saddr}};
	packet->destination = (struct address){{ip->daddr}};
	length = bpf_ntohs(ip->tot_len);
	if (ip->ihl * 4 < sizeof(*ip) || length < ip->ihl * 4 ||
	    length_lies(cursor, length))
		return PASS_MALFORMED;
	if (ip->ihl * 4 > sizeof(*ip))
		return PASS_OPTIONS;
	if (ip->frag_off & bpf_htons(IP_MORE_OR_OFFSET))
		return PASS_FRAGMENT;
	if (ip->protocol == IPPROTO_ICMPV6)
		return PASS_FOREIGN;
	packet->length = length;
	packet->protocol = ip->protocol;
	packet->ttl = ip->ttl;
	packet->tos = ip->tos;
	cursor->offset += sizeof(*ip);
	return parse_transport(cursor, packet);
}

struct fragment_header {
	__u8 next;
	__u8 reserved;
	__be16 offset; /* in the upper 13 bits; the lowest: more follow */
	__be32 id;
};

struct routing_header {
	__u8 next;
	__u8 length;
	__u8 type;
	__u8 segments_left;
	__be32 data;
};

/* Over one extension header: its next header, or minus the reason to stop. */
static __always_inline int skip_extension(struct cursor *cursor, int header)
{
	struct ipv6_opt_hdr *option = at(cursor);
	struct fragment_header *fragment;
	struct routing_header *routing;

	if (beyond(cursor, option + 1))
		return -PASS_MALFORMED;
	if (header == IPPROTO_FRAGMENT) {
		fragment = at(cursor);
		if (beyond(cursor, fragment + 1))
			return -PASS_MALFORMED;
		if (fragment->offset & bpf_htons(~6))
			return -PASS_FRAGMENT;
		cursor->offset += sizeof(*fragment);
		return fragment->next;
	}
	if (header == IPPROTO_ROUTING) {
		routing = at(cursor);
		if (beyond(cursor, routing + 1))
			return -PASS_MALFORMED;
		if (routing->segments_left)
			return -PASS_OPTIONS;
	}
	cursor->offset += (option->hdrlen + 1) * 8;
	return option->nexthdr;
}

static __always_inline int is_extension(int header)
{
	return header == IPPROTO_HOPOPTS || header == IPPROTO_DSTOPTS ||
	       header == IPPROTO_ROUTING || header == IPPROTO_FRAGMENT;
}

/*
 * Over all of them, from an offset and the type of the first header on: the
 * offset of the transport header << 8 | its protocol, or minus the reason to
 * stop. Global, so that the verifier walks it once and for all.
 */
__noinline int skip_extensions(struct xdp_md *ctx, __u32 offset, __u32 header)
{
	struct cursor cursor = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
		.offset = offset & (MAX_HEADERS - 1),
	};
	int next = header;

	for (int i = 0; i < MAX_EXTENSIONS && is_extension(next); i++) {
		next = skip_extension(&cursor, next);
		if (next < 0)
			return next;
		if (cursor.offset >= MAX_HEADERS)
			return -PASS_OPTIONS;
	}
	if (is_extension(next))
		return -PASS_OPTIONS;
	return cursor.offset << 8 | next;
}

static __always_inline int parse_ipv6(struct xdp_md *ctx, struct cursor *cursor,
				      struct packet *packet)
{
	struct ipv6hdr *ip = at(cursor);
	int protocol, walked;
	__u32 length;

	if (beyond(cursor, ip + 1) || ip->version != 6)
		return PASS_MALFORMED;
	packet->family = AF_INET6;
	__builtin_memcpy(&packet->source, &ip->saddr, sizeof(packet->source));
	__builtin_memcpy(&packet->destination, &ip->daddr,
			 sizeof(packet->destination));
	length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	if (length > 0xffff || length_lies(cursor, length))
		return PASS_MALFORMED;
	packet->length = length;
	packet->ttl = ip->hop_limit;
	packet->tos = bpf_ntohs(*(__be16 *)ip) >> 4;
	protocol = ip->nexthdr;
	cursor->offset += sizeof(*ip);
	if (is_extension(protocol)) {
		walked = skip_extensions(ctx, cursor->offset, protocol);
		if (walked < 0)
			return -walked;
		cursor->offset = walked >> 8 & (MAX_HEADERS - 1);
		protocol = walked & 0xff;
	}
	if (protocol == IPPROTO_ICMP)
		return PASS_FOREIGN;
	packet->protocol = protocol;
	return parse_transport(cursor, packet);
}

/*
 * PARSED, with everything in packet; or the reason to pass it on, with family
 * and addresses if it has any (else family is 0). Frames for more than one
 * station, or said to be from more than one, are never ours.
 */
static __always_inline int parse(struct xdp_md *ctx, struct packet *packet)
{
	struct cursor cursor = {
		.data = (void *)(long)ctx->data,
		.end = (void *)(long)ctx->data_end,
	};
	struct ethhdr *ethernet = at(&cursor);

	/* All of it: 6.18's verifier trips over a stack that is not. */
	__builtin_memset(packet, 0, sizeof(*packet));
	if (beyond(&cursor, ethernet + 1) ||
	    (ethernet->h_dest[0] | ethernet->h_source[0]) & 1)
		return PASS_FOREIGN;
	cursor.offset = sizeof(*ethernet);
	switch (ethernet->h_proto) {
	case bpf_htons(ETH_P_IP):
		return parse_ipv4(&cursor, packet);
	case bpf_htons(ETH_P_IPV6):
		return parse_ipv6(ctx, &cursor, packet);
	default:
		return PASS_FOREIGN;
	}
}

#endif
