/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where a packet goes from here. The routing tables are asked a few times a
 * second for each backend and CPU, not for each packet, and jiffies are the
 * cheapest clock there is. A backend whose address user space has changed is
 * looked up at once; an answer that was none, always.
 */
#ifndef EBPF_FLEET_XDP_LB_NEXT_HOP_H
#define EBPF_FLEET_XDP_LB_NEXT_HOP_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "clock.h"
#include "hash.h"
#include "maps.h"
#include "parse.h"

#define RENEW_JIFFIES 64
#define DEFAULT_MTU   1500 /* kernels before 5.13 do not tell */

static __always_inline int route_error(long answer)
{
	switch (answer) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return 0;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return DROP_NO_NEIGHBOUR;
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
		return DROP_NOT_FORWARDING;
	default:
		return DROP_NO_ROUTE;
	}
}

/* The lookup leaves the address, or puts a router's in its place. */
static __always_inline int is_routed(const struct next_hop *hop,
				     const struct bpf_fib_lookup *route)
{
	const __be32 *address = hop->address.word;

	if (hop->family == AF_INET)
		return route->ipv4_dst != address[0];
	return route->ipv6_dst[0] != address[0] ||
	       route->ipv6_dst[1] != address[1] ||
	       route->ipv6_dst[2] != address[2] ||
	       route->ipv6_dst[3] != address[3];
}

static __always_inline void renew(struct xdp_md *ctx, struct next_hop *hop)
{
	struct bpf_fib_lookup route = {};
	__u8 *link = (__u8 *)hop->link;

	route.family = hop->family;
	route.ifindex = ctx->ingress_ifindex;
	if (hop->family == AF_INET)
		route.ipv4_dst = hop->address.word[0];
	else
		__builtin_memcpy(route.ipv6_dst, &hop->address,
				 sizeof(hop->address));
	hop->renewed = bpf_jiffies64();
	hop->seconds = seconds_now();
	hop->error = route_error(bpf_fib_lookup(ctx, &route, sizeof(route), 0));
	hop->ifindex = route.ifindex;
	hop->routed = is_routed(hop, &route);
	hop->mtu = route.mtu_result ? route.mtu_result : DEFAULT_MTU;
	__builtin_memcpy(link, route.dmac, ETH_ALEN);
	__builtin_memcpy(link + ETH_ALEN, route.smac, ETH_ALEN);
}

/*
 * Seldom called. Global functions that take nothing but numbers: the verifier
 * walks them once and for all.
 */
__noinline int renew_backend_hop(struct xdp_md *ctx, __u32 id)
{
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &id);

	if (hop)
		renew(ctx, hop);
	return 0;
}

__noinline int renew_client_hop(struct xdp_md *ctx, __u32 place)
{
	struct next_hop *hop = bpf_map_lookup_elem(&client_hops, &place);

	if (hop)
		renew(ctx, hop);
	return 0;
}

/* Whether the hop has to be asked for; it is set up to be, then. */
static __always_inline int is_stale(struct next_hop *hop,
				    const struct address *address, __u8 family)
{
	if (hop->family == family && same_address(&hop->address, address) &&
	    !hop->error && bpf_jiffies64() - hop->renewed < RENEW_JIFFIES)
		return 0;
	hop->address = *address;
	hop->family = family;
	return 1;
}

/*
 * NULL only for an id that is none; else look at error first. id: the backend
 * that has the address
 */
static __always_inline struct next_hop *
hop_to(struct xdp_md *ctx, __u32 id, const struct address *address, __u8 family)
{
	struct next_hop *hop = bpf_map_lookup_elem(&next_hops, &id);

	if (hop && is_stale(hop, address, family))
		renew_backend_hop(ctx, id);
	return hop;
}

static __always_inline const struct next_hop *
backend_hop(struct xdp_md *ctx, __u32 id, const struct backend *backend)
{
	return hop_to(ctx, id, &backend->address, backend->family);
}

/* Likewise for a client, which shares its place with others. */
static __always_inline const struct next_hop *
client_hop(struct xdp_md *ctx, const struct address *client, __u8 family)
{
	__u32 place = hash_address(client, 0, family == AF_INET6);
	struct next_hop *hop;

	place %= CLIENT_HOPS;
	hop = bpf_map_lookup_elem(&client_hops, &place);
	if (hop && is_stale(hop, client, family))
		renew_client_hop(ctx, place);
	return hop;
}

/* Send the packet there. Its headers above Ethernet's are as they shall be. */
static __always_inline int transmit(struct xdp_md *ctx,
				    const struct next_hop *hop)
{
	__u32 *link = (void *)(long)ctx->data;

	if ((void *)(link + 3) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	link[0] = hop->link[0];
	link[1] = hop->link[1];
	link[2] = hop->link[2];
	if (hop->ifindex == ctx->ingress_ifindex)
		return XDP_TX;
	return bpf_redirect(hop->ifindex, 0);
}

#endif
