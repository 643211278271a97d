// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The least that a balancer which is configured by maps can do for each way of
 * forwarding, to measure against: look the service up, hash the flow, look the
 * backend up, rewrite. No ring, no state, no routes, no counters, no limits on
 * what a packet may look like. And the program that makes a test run
 * repeatable.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "hash.h"

#define FRAME	    96 /* bytes of every packet */
#define MAX_CLIENTS (1 << 20)
#define BACKENDS    4

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct scene {
	__u64 packet[FRAME / 8];
	__u32 clients; /* a power of two, less one */
	__u32 source; /* offset of the last word of its source address */
	__u32 ifindex; /* for send */
	__u32 zero;
};

struct client {
	__be32 address; /* its last word, zero in the scene's packet */
	__be16 port; /* likewise */
	__u16 sum; /* of the address's halves, as checksums are summed */
};

/* Words, not bytes: clang copies what may be unaligned byte by byte. */
struct target {
	struct address source; /* of encapsulated packets, and of nat */
	struct address backend;
	__u32 link[3]; /* destination and source, for Ethernet */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scene);
} scenes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_CLIENTS);
	__type(key, __u32);
	__type(value, struct client);
} clients SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct service4);
	__type(value, __u32);
} vips4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct service6);
	__type(value, __u32);
} vips6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BACKENDS);
	__type(key, __u32);
	__type(value, struct target);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} measured SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} arrived SEC(".maps");

__u32 cursor;

static __always_inline __u16 folded(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* More of what the checksum is over; RFC 1624. */
static __always_inline void add(__u16 *check, __u32 more)
{
	*check = ~folded((__u16) ~*check + more);
}

/* Undo what the last run has done, take the next client, run what is measured.
 */
SEC("xdp")
int restore(struct xdp_md *ctx)
{
	__u32 zero = 0, number = cursor++;
	struct scene *scene = bpf_map_lookup_elem(&scenes, &zero);
	int grown = ctx->data_end - ctx->data - FRAME;
	struct client *client;
	__u64 *packet;

	if (!scene || (grown && bpf_xdp_adjust_head(ctx, grown)))
		return XDP_ABORTED;
	number &= scene->clients;
	client = bpf_map_lookup_elem(&clients, &number);
	packet = (void *)(long)ctx->data;
	if (!client || (void *)packet + FRAME > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__builtin_memcpy(packet, scene->packet, FRAME);
	if (scene->source == 26) { /* IPv4 */
		*(__be32 *)((void *)packet + 26) = client->address;
		*(__be16 *)((void *)packet + 34) = client->port;
		add((void *)packet + 24, client->sum);
		add((void *)packet + 50, client->sum + client->port);
	} else {
		*(__be32 *)((void *)packet + 34) = client->address;
		*(__be16 *)((void *)packet + 54) = client->port;
		add((void *)packet + 70, client->sum + client->port);
	}
	bpf_tail_call(ctx, &measured, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int floor_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp")
int floor_drop(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

/* After restore: out of the interface that the packets are for. */
SEC("xdp")
int send(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct scene *scene = bpf_map_lookup_elem(&scenes, &zero);

	(void)ctx;
	return scene ? bpf_redirect(scene->ifindex, 0) : XDP_ABORTED;
}

/* Where they come back to. */
SEC("xdp")
int sink(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&arrived, &zero);

	(void)ctx;
	if (count)
		(*count)++;
	return XDP_DROP;
}

/* The least that sends a packet at all. */
SEC("xdp")
int floor_reflect(struct xdp_md *ctx)
{
	__u16 *words = (void *)(long)ctx->data;
	__u16 station[3];

	if ((void *)(words + 6) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	station[0] = words[0];
	station[1] = words[1];
	station[2] = words[2];
	words[0] = words[3];
	words[1] = words[4];
	words[2] = words[5];
	words[3] = station[0];
	words[4] = station[1];
	words[5] = station[2];
	return XDP_TX;
}

/* Ethernet to TCP, with nothing in between; NULL when the packet is shorter. */
#define HEADERS(ctx, type)                                                     \
	({                                                                     \
		void *data_ = (void *)(long)(ctx)->data;                       \
		void *end_ = data_ + ETH_HLEN + sizeof(type) +                 \
			     sizeof(struct tcphdr);                            \
		end_ > (void *)(long)(ctx)->data_end                           \
			? NULL                                                 \
			: (type *)(data_ + ETH_HLEN);                          \
	})
#define ETHERNET(ip) ((struct ethhdr *)((void *)(ip)-ETH_HLEN))
#define TCP(ip)	     ((struct tcphdr *)((ip) + 1))

/* The packet's backend; NULL when the packet is for no service. */
static __always_inline const struct target *target4(const struct iphdr *ip)
{
	struct service4 key = {};
	__u32 choice;

	if (!ip || ETHERNET(ip)->h_proto != bpf_htons(ETH_P_IP) || ip->ihl != 5)
		return NULL;
	key.address = ip->daddr;
	key.port = TCP(ip)->dest;
	key.protocol = ip->protocol;
	if (!bpf_map_lookup_elem(&vips4, &key))
		return NULL;
	choice = hash_words(ip->saddr, 0, TCP(ip)->source) % BACKENDS;
	return bpf_map_lookup_elem(&targets, &choice);
}

static __always_inline const struct target *target6(const struct ipv6hdr *ip)
{
	const struct address *from;
	struct service6 key = {};
	__u32 choice;

	if (!ip || ETHERNET(ip)->h_proto != bpf_htons(ETH_P_IPV6))
		return NULL;
	key.address = *(const struct address *)&ip->daddr;
	key.port = TCP(ip)->dest;
	key.protocol = ip->nexthdr;
	if (!bpf_map_lookup_elem(&vips6, &key))
		return NULL;
	from = (const struct address *)&ip->saddr;
	choice = hash_address(from, TCP(ip)->source, 1) % BACKENDS;
	return bpf_map_lookup_elem(&targets, &choice);
}

/* Where the frame goes: 12 bytes, which are aligned to words. */
static __always_inline void address(struct ethhdr *ethernet, const __u32 *link)
{
	__u32 *words = (void *)ethernet;

	words[0] = link[0];
	words[1] = link[1];
	words[2] = link[2];
}

SEC("xdp")
int floor_dsr4(struct xdp_md *ctx)
{
	struct iphdr *ip = HEADERS(ctx, struct iphdr);
	const struct target *to = target4(ip);

	if (!to)
		return XDP_PASS;
	address(ETHERNET(ip), to->link);
	return XDP_TX;
}

SEC("xdp")
int floor_dsr6(struct xdp_md *ctx)
{
	struct ipv6hdr *ip = HEADERS(ctx, struct ipv6hdr);
	const struct target *to = target6(ip);

	if (!to)
		return XDP_PASS;
	address(ETHERNET(ip), to->link);
	return XDP_TX;
}

SEC("xdp")
int floor_ipip4(struct xdp_md *ctx)
{
	struct iphdr *ip = HEADERS(ctx, struct iphdr);
	const struct target *to = target4(ip);
	struct ethhdr *ethernet;
	struct iphdr *outer;
	__u32 sum = 0;
	__u16 length;

	if (!to)
		return XDP_PASS;
	length = bpf_ntohs(ip->tot_len) + sizeof(*outer);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	address(ethernet, to->link);
	ethernet->h_proto = bpf_htons(ETH_P_IP);
	*(__u16 *)outer = bpf_htons(0x4500);
	outer->tot_len = bpf_htons(length);
	outer->id = 0;
	outer->frag_off = bpf_htons(0x4000);
	outer->ttl = 64;
	outer->protocol = IPPROTO_IPIP;
	outer->check = 0;
	outer->saddr = to->source.word[0];
	outer->daddr = to->backend.word[0];
#pragma unroll
	for (int word = 0; word < 10; word++)
		sum += ((__u16 *)outer)[word];
	outer->check = ~folded(sum);
	return XDP_TX;
}

SEC("xdp")
int floor_ipip6(struct xdp_md *ctx)
{
	struct ipv6hdr *ip = HEADERS(ctx, struct ipv6hdr);
	const struct target *to = target6(ip);
	struct ethhdr *ethernet;
	struct ipv6hdr *outer;
	__u16 length;

	if (!to)
		return XDP_PASS;
	length = bpf_ntohs(ip->payload_len) + sizeof(*outer);
	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*outer)))
		return XDP_DROP;
	ethernet = (void *)(long)ctx->data;
	outer = (void *)(ethernet + 1);
	if ((void *)(outer + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	address(ethernet, to->link);
	ethernet->h_proto = bpf_htons(ETH_P_IPV6);
	*(__be32 *)outer = bpf_htonl(0x60000000);
	outer->payload_len = bpf_htons(length);
	outer->nexthdr = IPPROTO_IPV6;
	outer->hop_limit = 64;
	*(struct address *)&outer->saddr = to->source;
	*(struct address *)&outer->daddr = to->backend;
	return XDP_TX;
}

/* RFC 1624: what the words were, complemented, and what they are. */
static __always_inline void exchange(__u16 *check, const void *old,
				     const void *new, int words)
{
	__u32 sum = (__u16) ~*check;

#pragma unroll
	for (int word = 0; word < words; word++)
		sum += (__u16) ~((const __u16 *)old)[word] +
		       ((const __u16 *)new)[word];
	*check = ~folded(sum);
}

SEC("xdp")
int floor_nat4(struct xdp_md *ctx)
{
	struct iphdr *ip = HEADERS(ctx, struct iphdr);
	const struct target *to = target4(ip);

	if (!to)
		return XDP_PASS;
	exchange(&ip->check, &ip->saddr, &to->source, 2);
	exchange(&ip->check, &ip->daddr, &to->backend, 2);
	exchange(&TCP(ip)->check, &ip->saddr, &to->source, 2);
	exchange(&TCP(ip)->check, &ip->daddr, &to->backend, 2);
	ip->saddr = to->source.word[0];
	ip->daddr = to->backend.word[0];
	address(ETHERNET(ip), to->link);
	return XDP_TX;
}

SEC("xdp")
int floor_nat6(struct xdp_md *ctx)
{
	struct ipv6hdr *ip = HEADERS(ctx, struct ipv6hdr);
	const struct target *to = target6(ip);

	if (!to)
		return XDP_PASS;
	exchange(&TCP(ip)->check, &ip->saddr, &to->source, 8);
	exchange(&TCP(ip)->check, &ip->daddr, &to->backend, 8);
	*(struct address *)&ip->saddr = to->source;
	*(struct address *)&ip->daddr = to->backend;
	address(ETHERNET(ip), to->link);
	return XDP_TX;
}
