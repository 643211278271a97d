// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Takes the outer header off the packets that a load balancer has encapsulated,
 * for kernels without the drivers ipip and ip6_tunnel. The packet goes on into
 * the stack as if it had come in without; what was sent to another end, or
 * holds no packet for a VIP, goes on as it is.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define FRAGMENT 0x3fff /* more fragments, or an offset; RFC 791 */
#define ALL	 128

/* A network, IPv4 as v4-mapped IPv6. Matches the first prefixlen bits. */
struct address_prefix {
	__u32 prefixlen;
	struct in6_addr address;
};

/* The addresses that packets are unpacked at. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct address_prefix);
	__type(value, __u8);
} ends SEC(".maps");

/* The addresses that what is unpacked must be for. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 8192);
	__type(key, struct address_prefix);
	__type(value, __u8);
} vips SEC(".maps");

/* How many packets were unpacked. Read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unpacked SEC(".maps");

static __always_inline struct address_prefix mapped(__be32 address)
{
	struct address_prefix found = {.prefixlen = ALL};

	found.address.in6_u.u6_addr32[2] = bpf_htonl(0xffff);
	found.address.in6_u.u6_addr32[3] = address;
	return found;
}

static __always_inline struct address_prefix
whole(const struct in6_addr *address)
{
	struct address_prefix found = {.prefixlen = ALL, .address = *address};

	return found;
}

static __always_inline int is_vip(const void *inner, const void *end,
				  __u8 protocol)
{
	const struct iphdr *ip4 = inner;
	const struct ipv6hdr *ip6 = inner;
	struct address_prefix destination;

	if (protocol == IPPROTO_IPIP) {
		if ((const void *)(ip4 + 1) > end || ip4->version != 4)
			return 0;
		destination = mapped(ip4->daddr);
	} else {
		if ((const void *)(ip6 + 1) > end || ip6->version != 6)
			return 0;
		destination = whole(&ip6->daddr);
	}
	return bpf_map_lookup_elem(&vips, &destination) != 0;
}

/* Removes the outer header; Ethernet's moves up to the inner one. */
static __always_inline int strip(struct xdp_md *ctx, __u32 length,
				 __u8 protocol)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr ethernet, *old = data;
	__u32 key = 0;
	__u64 *count;

	if ((void *)(old + 1) > end)
		return XDP_PASS;
	ethernet = *old;
	ethernet.h_proto = protocol == IPPROTO_IPIP ? bpf_htons(ETH_P_IP)
						    : bpf_htons(ETH_P_IPV6);
	if (bpf_xdp_adjust_head(ctx, (int)length))
		return XDP_DROP;
	data = (void *)(long)ctx->data;
	end = (void *)(long)ctx->data_end;
	if (data + sizeof(ethernet) > end)
		return XDP_DROP;
	*(struct ethhdr *)data = ethernet;
	count = bpf_map_lookup_elem(&unpacked, &key);
	if (count)
		++*count;
	return XDP_PASS;
}

static __always_inline int unpack4(struct xdp_md *ctx, struct iphdr *outer,
				   void *end)
{
	struct address_prefix destination;

	if ((void *)(outer + 1) > end || outer->version != 4 ||
	    outer->ihl != 5 || outer->protocol != IPPROTO_IPIP ||
	    outer->frag_off & bpf_htons(FRAGMENT))
		return XDP_PASS;
	destination = mapped(outer->daddr);
	if (!bpf_map_lookup_elem(&ends, &destination) ||
	    !is_vip(outer + 1, end, outer->protocol))
		return XDP_PASS;
	return strip(ctx, sizeof(*outer), IPPROTO_IPIP);
}

static __always_inline int unpack6(struct xdp_md *ctx, struct ipv6hdr *outer,
				   void *end)
{
	struct address_prefix destination;
	__u8 protocol;

	if ((void *)(outer + 1) > end || outer->version != 6)
		return XDP_PASS;
	protocol = outer->nexthdr;
	if (protocol != IPPROTO_IPIP && protocol != IPPROTO_IPV6)
		return XDP_PASS;
	destination = whole(&outer->daddr);
	if (!bpf_map_lookup_elem(&ends, &destination) ||
	    !is_vip(outer + 1, end, protocol))
		return XDP_PASS;
	return strip(ctx, sizeof(*outer), protocol);
}

SEC("xdp") int unpack(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;

	if ((void *)(ethernet + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP))
		return unpack4(ctx, (void *)(ethernet + 1), end);
	if (ethernet->h_proto == bpf_htons(ETH_P_IPV6))
		return unpack6(ctx, (void *)(ethernet + 1), end);
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
