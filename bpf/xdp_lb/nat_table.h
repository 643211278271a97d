/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who has which port. A translation is two entries, one for each direction: the
 * flow as its client sees it, and the answer as its backend sends it. The
 * answer's entry is the port's title: it is only ever inserted where there is
 * none. Both begin in tables of their own, for what only a first packet vouches
 * for, and move on once the other end has spoken; so a flood of first packets
 * evicts only its like.
 */
#ifndef EBPF_FLEET_XDP_LB_NAT_TABLE_H
#define EBPF_FLEET_XDP_LB_NAT_TABLE_H

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "clock.h"
#include "maps.h"
#include "nat_work.h"
#include "parse.h"
#include "ring.h"

/* Seconds for which a backend may remember what has ended: TIME_WAIT. */
#define LINGER 60
/* And at least, more than the clock's unit. */
#define LINGER_HURRIED 2

static __always_inline int same_flow(const struct flow *one,
				     const struct flow *other)
{
	return same_address(&one->client, &other->client) &&
	       one->client_port == other->client_port &&
	       one->service_port == other->service_port &&
	       one->service == other->service;
}

/* Both ends have ended it, as far as the backend knows. */
static __always_inline int is_finished(const struct nat_entry *entry)
{
	return entry->state & FLOW_BACKEND_FIN &&
	       entry->state & (FLOW_CLIENT_FIN | FLOW_RESET);
}

static __always_inline __u32 idle_limit(const struct settings *settings,
					__u8 protocol)
{
	return protocol == IPPROTO_UDP ? settings->idle_udp
				       : settings->idle_tcp;
}

/* The entry may be of another connection of the same flow. */
static __always_inline int leads_to(const struct nat_entry *entry,
				    const struct nat_reply *reply)
{
	const struct backend *backend;
	__u32 id = entry->backend;

	backend = bpf_map_lookup_elem(&backends, &id);
	return entry->nat_port == reply->nat_port && backend &&
	       same_address(&backend->address, &reply->backend);
}

/* How hard a port is looked for. */
enum patience {
	PATIENT,
	HURRIED, /* what has ended may not have ended at the backend */
	PRESSED, /* half-open connections may have to begin again */
	CLAIMING, /* only they: the flow was one of them before */
};

/*
 * Silent for how long does an unconfirmed or ended flow have no use for its
 * port? A client's reset counts only here: anybody could have sent it. An
 * answer to a datagram that reaches another client is worse than a connection
 * that has to begin again.
 */
static __always_inline __u32 lapse(const struct nat_entry *entry,
				   enum patience patience,
				   const struct settings *settings)
{
	int is_opening = !(entry->state & FLOW_OPEN);

	if (is_opening && entry->protocol == IPPROTO_TCP && patience >= PRESSED)
		return 0;
	if (is_opening || is_finished(entry) || entry->state & FLOW_RESET)
		return patience == HURRIED || patience == PRESSED
			       ? LINGER_HURRIED
			       : LINGER;
	return idle_limit(settings, entry->protocol);
}

/* entry: of the port's holder, NULL if it has none */
static __noinline int is_over(const struct nat_entry *entry,
			      const struct nat_origin *holder,
			      const struct nat_reply *reply,
			      enum patience patience)
{
	const struct settings *settings = settings_now();
	__u32 now = seconds_now();
	__u32 silence = since(holder->seen, now);

	if (!settings)
		return 0;
	if (!entry || !leads_to(entry, reply))
		return silence >= LINGER_HURRIED;
	if (since(entry->seen, now) < silence)
		silence = since(entry->seen, now);
	return silence >= lapse(entry, patience, settings);
}

/* Whether the port can be had from whom it belongs to among the confirmed. */
static __always_inline int is_open_over(const struct nat_origin *holder,
					const struct nat_reply *reply,
					enum patience patience)
{
	return is_over(bpf_map_lookup_elem(&nat_flows, &holder->flow), holder,
		       reply, patience);
}

static __always_inline int is_opening_over(const struct nat_origin *holder,
					   const struct nat_reply *reply,
					   enum patience patience)
{
	const struct nat_entry *entry;

	entry = bpf_map_lookup_elem(&nat_opening, &holder->flow);
	/* Its other half was evicted. */
	if (!entry && reply->protocol == IPPROTO_TCP && patience >= PRESSED)
		return 1;
	return is_over(entry, holder, reply, patience);
}

/* Make room at a port whose flow is over. The flow's own entry goes first. */
static __always_inline int vacate_locked(const struct nat_reply *reply,
					 enum patience patience)
{
	struct nat_origin *holder;
	struct nat_entry *entry;
	struct flow flow;

	holder = bpf_map_lookup_elem(&nat_replies_opening, reply);
	if (holder) {
		if (!is_opening_over(holder, reply, patience))
			return 0;
		flow = holder->flow;
		entry = bpf_map_lookup_elem(&nat_opening, &flow);
		if (entry && leads_to(entry, reply))
			bpf_map_delete_elem(&nat_opening, &flow);
		bpf_map_delete_elem(&nat_replies_opening, reply);
	}
	holder = bpf_map_lookup_elem(&nat_replies, reply);
	if (holder) {
		if (!is_open_over(holder, reply, patience))
			return 0;
		flow = holder->flow;
		entry = bpf_map_lookup_elem(&nat_flows, &flow);
		if (entry && leads_to(entry, reply))
			bpf_map_delete_elem(&nat_flows, &flow);
		bpf_map_delete_elem(&nat_replies, reply);
	}
	return 1;
}

/* Nobody else moves or removes the port's entries meanwhile: 1, or 0. */
static __always_inline int lock_port(const struct nat_reply *reply)
{
	__u8 locked = 1;

	return !bpf_map_update_elem(&nat_takeovers, reply, &locked,
				    BPF_NOEXIST);
}

static __always_inline void unlock_port(const struct nat_reply *reply)
{
	bpf_map_delete_elem(&nat_takeovers, reply);
}

static __always_inline int vacate(const struct nat_reply *reply,
				  enum patience patience)
{
	int done;

	if (!lock_port(reply))
		return 0;
	done = vacate_locked(reply, patience);
	unlock_port(reply);
	return done;
}

/*
 * Take the port if no flow has it; 1 if it is this flow's now, or was. The
 * order matters: a flow that is being confirmed has both entries for a moment.
 */
static __noinline int hold(const struct nat_reply *reply,
			   const struct nat_origin *origin)
{
	struct nat_origin *holder;

	holder = bpf_map_lookup_elem(&nat_replies_opening, reply);
	if (!holder && bpf_map_update_elem(&nat_replies_opening, reply, origin,
					   BPF_NOEXIST))
		holder = bpf_map_lookup_elem(&nat_replies_opening, reply);
	if (holder && !same_flow(&holder->flow, &origin->flow))
		return 0;
	holder = bpf_map_lookup_elem(&nat_replies, reply);
	if (!holder || same_flow(&holder->flow, &origin->flow))
		return 1;
	bpf_map_delete_elem(&nat_replies_opening, reply);
	return 0;
}

/*
 * The same, if need be from a flow that is over. Most ports that are not free
 * are in use: a look at them comes first and locks nothing.
 */
static __always_inline int take(const struct nat_reply *reply,
				const struct nat_origin *origin,
				enum patience patience)
{
	struct nat_origin *holder;

	holder = bpf_map_lookup_elem(&nat_replies, reply);
	if (holder) {
		if (!same_flow(&holder->flow, &origin->flow) &&
		    !is_open_over(holder, reply, patience))
			return 0;
	} else {
		holder = bpf_map_lookup_elem(&nat_replies_opening, reply);
		if (holder && !same_flow(&holder->flow, &origin->flow) &&
		    !is_opening_over(holder, reply, patience))
			return 0;
	}
	if (holder && !same_flow(&holder->flow, &origin->flow) &&
	    !vacate(reply, patience))
		return 0;
	return hold(reply, origin);
}

/* Among the confirmed: 0, or it stays where it is. */
static __always_inline int confirm_locked(const struct way *way)
{
	struct nat_origin *origin;
	struct nat_entry *entry;
	struct nat_entry open;

	entry = bpf_map_lookup_elem(&nat_opening, &way->flow);
	origin = bpf_map_lookup_elem(&nat_replies_opening, &way->reply);
	if (!entry || !origin || !same_flow(&origin->flow, &way->flow))
		return -1;
	open = *entry;
	open.state = (open.state | FLOW_OPEN) & ~FLOW_CLAIMED;
	if (bpf_map_update_elem(&nat_replies, &way->reply, origin, BPF_ANY))
		return -1;
	if (bpf_map_update_elem(&nat_flows, &way->flow, &open, BPF_ANY)) {
		bpf_map_delete_elem(&nat_replies, &way->reply);
		return -1;
	}
	bpf_map_delete_elem(&nat_opening, &way->flow);
	bpf_map_delete_elem(&nat_replies_opening, &way->reply);
	return 0;
}

static __noinline int confirm(const struct way *way)
{
	int error;

	if (!lock_port(&way->reply))
		return -1;
	error = confirm_locked(way);
	unlock_port(&way->reply);
	return error;
}

static __always_inline void forget_flow(const struct way *way)
{
	bpf_map_delete_elem(&nat_flows, &way->flow);
	bpf_map_delete_elem(&nat_opening, &way->flow);
}

/* The flow begins again, or has lost its port. */
static __noinline int forget(const struct way *way)
{
	struct nat_origin *holder;

	forget_flow(way);
	holder = bpf_map_lookup_elem(&nat_replies, &way->reply);
	if (holder && same_flow(&holder->flow, &way->flow))
		bpf_map_delete_elem(&nat_replies, &way->reply);
	holder = bpf_map_lookup_elem(&nat_replies_opening, &way->reply);
	if (holder && same_flow(&holder->flow, &way->flow))
		bpf_map_delete_elem(&nat_replies_opening, &way->reply);
	return 0;
}

#endif
