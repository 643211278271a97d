// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * What runs at the other ends of the test network's veth pairs.
 *
 * pass:        XDP_TX and redirection into a veth need a program on its peer.
 * decapsulate: a backend's end of the tunnel. It is as strict as a kernel's
 *              tunnel driver: addressed elsewhere, a wrong outer checksum or an
 *              outer length that lies, and the packet goes on as it is, to be
 *              dropped by a stack that knows no such protocol.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTOCOL_OFFSET offsetof(struct ethhdr, h_proto)

SEC("xdp/pass") int pass(struct xdp_md *context)
{
	return XDP_PASS;
}

static __always_inline __u16 checksum(const struct iphdr *header)
{
	const __u16 *words = (const void *)header;
	__u32 sum = 0;

#pragma unroll
	for (int word = 0; word < sizeof(*header) / 2; word++)
		sum += words[word];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~((sum & 0xffff) + (sum >> 16));
}

/* Takes the outer header away; the Ethernet header moves up to the inner one.
 */
static __always_inline int strip(struct xdp_md *context, __u32 length,
				 __be16 inner)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	struct ethhdr ethernet, *old = data;

	if ((void *)(old + 1) > end)
		return XDP_PASS;
	ethernet = *old;
	ethernet.h_proto = inner;
	if (bpf_xdp_adjust_head(context, length))
		return XDP_DROP;
	data = (void *)(long)context->data;
	end = (void *)(long)context->data_end;
	if (data + sizeof(ethernet) > end)
		return XDP_DROP;
	*(struct ethhdr *)data = ethernet;
	return XDP_PASS;
}

SEC("xdp/decapsulate") int decapsulate(struct xdp_md *context)
{
	void *data = (void *)(long)context->data;
	void *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip4 = data + sizeof(*ethernet);
	struct ipv6hdr *ip6 = data + sizeof(*ethernet);

	if ((void *)(ip4 + 1) > end)
		return XDP_PASS;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		if (ip4->ihl != 5 || ip4->protocol != IPPROTO_IPIP ||
		    checksum(ip4) ||
		    (void *)ip4 + bpf_ntohs(ip4->tot_len) != end || !ip4->ttl)
			return XDP_PASS;
		return strip(context, sizeof(*ip4), bpf_htons(ETH_P_IP));
	}
	if (ethernet->h_proto != bpf_htons(ETH_P_IPV6) ||
	    (void *)(ip6 + 1) > end)
		return XDP_PASS;
	if (ip6->version != 6 || !ip6->hop_limit ||
	    (void *)(ip6 + 1) + bpf_ntohs(ip6->payload_len) != end)
		return XDP_PASS;
	if (ip6->nexthdr == IPPROTO_IPIP)
		return strip(context, sizeof(*ip6), bpf_htons(ETH_P_IP));
	if (ip6->nexthdr == IPPROTO_IPV6)
		return strip(context, sizeof(*ip6), bpf_htons(ETH_P_IPV6));
	return XDP_PASS;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
