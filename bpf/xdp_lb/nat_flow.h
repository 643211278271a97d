/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What becomes of a flow: it begins, is confirmed, ends, begins again. */
#ifndef EBPF_FLEET_XDP_LB_NAT_FLOW_H
#define EBPF_FLEET_XDP_LB_NAT_FLOW_H

#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "hash.h"
#include "maps.h"
#include "nat_table.h"
#include "parse.h"
#include "ring.h"

/* Ports to look at before giving up: for free ones, then for scarce ones. */
#define PORT_PROBES 8
/* Flags of a packet that changes what a flow is. */
#define TCP_CHANGES (TCP_SYN | TCP_FIN | TCP_RST)

/* May the packet begin a connection? */
static __always_inline int is_opener(const struct packet *packet)
{
	return packet->protocol == IPPROTO_UDP || is_first_syn(packet);
}

static __always_inline void set_flow(struct way *way,
				     const struct packet *packet, __u32 service)
{
	way->flow.client = packet->source;
	way->flow.client_port = packet->source_port;
	way->flow.service_port = packet->destination_port;
	way->flow.service = service;
}

/* To that backend: NULL if packets of the flow may not go there. */
static __always_inline const struct backend *
set_backend(struct way *way, __u32 id, const struct packet *packet)
{
	const struct backend *backend = usable_backend(id, way->flow.service);

	if (!backend || backend->family != packet->family)
		return NULL;
	way->backend = id;
	way->reply.backend = backend->address;
	way->reply.backend_port =
		backend->port ? backend->port : way->flow.service_port;
	way->reply.protocol = packet->protocol;
	way->reply.family = packet->family;
	return backend;
}

/*
 * A port for the flow, 1 if there is one. A client's address and port name the
 * first to look at, so that a repeated SYN finds its own.
 */
static __noinline int find_port(struct way *way,
				const struct nat_origin *origin)
{
	const struct settings *settings = settings_now();
	__u32 start, first, ports;

	if (!settings || settings->nat_port_last < settings->nat_port_first)
		return 0;
	first = settings->nat_port_first;
	ports = settings->nat_port_last - first + 1;
	start = hash_address(&origin->flow.client, origin->flow.client_port,
			     way->reply.family == AF_INET6);
	for (__u32 i = 0; i < 2 * PORT_PROBES; i++) {
		way->reply.nat_port =
			bpf_htons(first + (start + i % PORT_PROBES) % ports);
		if (hold(&way->reply, origin))
			return 1;
		if (vacate(&way->reply, i >= PORT_PROBES) &&
		    hold(&way->reply, origin))
			return 1;
	}
	return 0;
}

static __always_inline void set_origin(struct nat_origin *origin,
				       const struct way *way,
				       const struct packet *packet, __u32 now)
{
	origin->flow = way->flow;
	origin->vip = packet->destination;
	origin->seen = now;
}

static __always_inline void count_udp_flow(const struct way *way)
{
	struct backend_counters *counters;
	__u32 id = way->backend;

	counters = bpf_map_lookup_elem(&backend_counters, &id);
	if (counters && way->reply.protocol == IPPROTO_UDP)
		counters->connections++;
}

/* A new flow, by the ring: 0, or the reason to drop its packet. */
static __noinline int begin(const struct packet *packet,
			    const struct service *service, struct way *way)
{
	const struct ring *ring = find_ring(service->id);
	const struct slot *slot;
	struct nat_origin origin;
	struct nat_entry entry = {};

	if (!ring)
		return DROP_NO_BACKEND;
	slot = ring_slot(ring, slot_index(packet, service));
	if (!slot || !set_backend(way, slot->backend, packet))
		return DROP_NO_BACKEND;
	entry.seen = seconds_now();
	set_origin(&origin, way, packet, entry.seen);
	if (!find_port(way, &origin))
		return DROP_NO_PORT;
	entry.backend = way->backend;
	entry.nat_port = way->reply.nat_port;
	entry.protocol = packet->protocol;
	if (bpf_map_update_elem(&nat_opening, &way->flow, &entry, BPF_ANY)) {
		forget(way);
		return DROP_NO_ROOM;
	}
	count_udp_flow(way);
	return 0;
}

/* Whether the packet begins another connection where one was. */
static __always_inline int begins_again(const struct packet *packet,
					const struct nat_entry *entry,
					const struct backend *backend)
{
	const struct settings *settings = settings_now();

	if (!is_opener(packet) || !settings)
		return 0;
	if (since(entry->seen, seconds_now()) >=
	    idle_limit(settings, packet->protocol))
		return 1;
	if (packet->protocol == IPPROTO_UDP)
		return 0;
	/* Reset by its client, or so it seems: the backend will know. */
	return is_finished(entry) ||
	       (entry->state & FLOW_RESET && backend->state != BACKEND_ACTIVE);
}

/* Note what the client did. Write only what changes: CPUs share the line. */
static __always_inline void note_client(struct nat_entry *entry,
					const struct packet *packet, __u32 now)
{
	__u8 state = entry->state;

	/* What goes on was not reset. */
	if (!is_finished(entry))
		state &= ~FLOW_RESET;
	if (packet->tcp_flags & TCP_FIN)
		state |= FLOW_CLIENT_FIN;
	if (packet->tcp_flags & TCP_RST)
		state |= FLOW_RESET;
	if (entry->state != state)
		entry->state = state;
	if (entry->seen != now)
		entry->seen = now;
}

/* Does the client acknowledge the backend's SYN? Only who got it can. */
static __always_inline int acknowledges(struct xdp_md *ctx,
					const struct packet *packet,
					const struct nat_entry *entry)
{
	const struct tcphdr *tcp;

	if (packet->protocol != IPPROTO_TCP || !entry->server_sequence ||
	    (packet->tcp_flags & (TCP_SYN | TCP_RST | TCP_ACK)) != TCP_ACK)
		return 0;
	tcp = transport(ctx, packet, sizeof(*tcp));
	return tcp && bpf_ntohl(tcp->ack_seq) == entry->server_sequence;
}

/*
 * The flow has an entry. Whether it has its port, too: its answers' entry may
 * have been evicted, and the port been given to another.
 */
static __noinline int keeps_port(const struct packet *packet,
				 const struct way *way, int confirmed)
{
	struct nat_origin *holder;
	struct nat_origin origin;

	if (confirmed) {
		holder = bpf_map_lookup_elem(&nat_replies, &way->reply);
		if (holder)
			return same_flow(&holder->flow, &way->flow);
	}
	set_origin(&origin, way, packet, seconds_now());
	if (!hold(&way->reply, &origin))
		return 0;
	if (!confirmed)
		return 1;
	if (bpf_map_update_elem(&nat_replies, &way->reply, &origin, BPF_ANY))
		return 0;
	bpf_map_delete_elem(&nat_replies_opening, &way->reply);
	return 1;
}

/* Along the flow's entry: 0, or the reason why that leads nowhere. */
static __noinline int go_on(struct xdp_md *ctx, const struct packet *packet,
			    struct way *way)
{
	const struct backend *backend;
	struct nat_entry *entry;
	int confirmed = 1;

	entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
	if (!entry) {
		entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
		confirmed = 0;
	}
	if (!entry) { /* another CPU may just have confirmed it */
		entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
		confirmed = 1;
	}
	if (!entry)
		return DROP_NO_CONNECTION;
	backend = set_backend(way, entry->backend, packet);
	if (!backend)
		return DROP_NO_BACKEND;
	way->reply.nat_port = entry->nat_port;
	if (begins_again(packet, entry, backend) ||
	    !keeps_port(packet, way, confirmed)) {
		forget(way);
		return DROP_NO_CONNECTION;
	}
	if (!confirmed && acknowledges(ctx, packet, entry) && !confirm(way)) {
		entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
		if (!entry)
			return DROP_NO_CONNECTION;
	}
	note_client(entry, packet, seconds_now());
	return 0;
}

/* A packet from a client: 0 and its way, or the reason to drop it. */
static __noinline int find_way(struct xdp_md *ctx, const struct packet *packet,
			       const struct service *service, struct way *way)
{
	int reason = go_on(ctx, packet, way);

	return reason && is_opener(packet) ? begin(packet, service, way)
					   : reason;
}

/* Note what the backend did. */
static __always_inline void note_backend(struct nat_entry *entry,
					 const struct packet *packet)
{
	if (packet->tcp_flags & TCP_FIN)
		entry->state |= FLOW_BACKEND_FIN;
	if (packet->tcp_flags & TCP_RST)
		entry->state |= FLOW_BACKEND_FIN | FLOW_RESET;
}

/* The backend's first packets: a datagram confirms, a SYN-ACK has to be. */
static __always_inline void note_answer(struct xdp_md *ctx,
					const struct packet *packet,
					struct nat_entry *entry)
{
	const struct tcphdr *tcp;

	note_backend(entry, packet);
	if ((packet->tcp_flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
		return;
	tcp = transport(ctx, packet, sizeof(*tcp));
	if (tcp)
		entry->server_sequence = bpf_ntohl(tcp->seq) + 1;
}

/* A packet from a backend: whose answer it is, NULL if nobody's. */
static __noinline struct nat_origin *
find_origin(struct xdp_md *ctx, const struct packet *packet, struct way *way)
{
	struct nat_origin *origin, *opening;
	struct nat_entry *entry;

	origin = bpf_map_lookup_elem(&nat_replies, &way->reply);
	if (!origin) {
		opening =
			bpf_map_lookup_elem(&nat_replies_opening, &way->reply);
		if (!opening)
			return bpf_map_lookup_elem(&nat_replies, &way->reply);
		way->flow = opening->flow;
		opening->seen = seconds_now();
		entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
		if (!entry)
			return opening;
		note_answer(ctx, packet, entry);
		if (packet->protocol != IPPROTO_UDP || confirm(way))
			return opening;
		return bpf_map_lookup_elem(&nat_replies, &way->reply);
	}
	way->flow = origin->flow;
	entry = bpf_map_lookup_elem(&nat_flows, &way->flow);
	if (entry)
		note_backend(entry, packet);
	return origin;
}

#endif
