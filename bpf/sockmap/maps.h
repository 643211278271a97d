/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The maps, and the state of a socket that only the programs see. */
#ifndef EBPF_FLEET_SOCKMAP_MAPS_H
#define EBPF_FLEET_SOCKMAP_MAPS_H

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "sockmap.h"

enum verdict {
	VERDICT_UNDECIDED = 0, /* nothing has been sent yet */
	VERDICT_REDIRECT,
	VERDICT_TCP,
};

/*
 * What the other end reads of a direction, with bpf_probe_read_kernel: socket
 * storage can only be looked up through one's own socket.
 */
struct shared {
	__u64 messages; /* sent, by either way */
	__u32 redirected; /* 1: at least one of them was redirected */
	__u32 retiring; /* 1: this socket leaves the map, send it nothing */
	__u64 silent; /* 1: nothing is or will be on its way from here */
};

/* One direction: the bytes that one socket sends. */
struct direction {
	struct shared shared;
	struct sequence_pair own;
	struct sequence_pair peer;
	__u64 sk; /* address of this socket's struct sock */
	__u64 cookie; /* of this socket */
	__u64 net; /* address of its struct net */
	__u64 peer_sk; /* and of the other end's, 0: not found yet */
	__u64 peer_cookie; /* its cookie, to know it from a later socket there
			    */
	__u64 peer_shared; /* address of its struct shared */
	__u64 retiring_since; /* ns */
	__u32 verdict; /* enum verdict */
	int reason; /* enum event_reason, why TCP */
	__u32 probing; /* 1: keepalive was switched on, see handover.h */
	int idle; /* keepalive times of the application, seconds */
	int interval;
	__u32 woken; /* 1: the reader was told of bytes in the TCP queue */
	__u32 crosses; /* 1: the ends are in different network namespaces */
	/* since the other end last sent anything */
	__u64 streak_peer_messages; /* its count then */
	__u64 streak_started; /* ns, 0: not yet read */
	__u64 streak_bytes;
	__u32 streak_messages;
	/* since the receiver's queue was last looked at */
	__u32 unchecked_messages;
	__u32 unchecked_bytes;
	/* since the receiver's queue was last seen empty */
	__u32 queued_messages;
	__u64 queued_bytes;
};

/* Where the other end finds a socket and its state. */
struct whereabouts {
	__u64 sk; /* address of struct sock */
	__u64 cookie;
	__u64 shared; /* address of struct shared */
	__u64 net; /* address of struct net */
};

/* Sockets by their own pair. Written by sockops, read by sk_msg. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 65536);
	__type(key, struct sequence_pair);
	__type(value, __u64);
} sockets SEC(".maps");

/* Per-socket state. Written by both programs, each under the socket's lock. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct direction);
} directions SEC(".maps");

/*
 * By the socket's own pair. Written by sockops; taken out, once, by the other
 * end's first message, after which that end may redirect to this socket, or by
 * this socket when it leaves, after which the other end never will: whoever
 * deletes the entry has decided it. One that the LRU has dropped means TCP.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct sequence_pair);
	__type(value, struct whereabouts);
} peers SEC(".maps");

/* Service ports. Written by user space, read by sockops. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct port_prefix);
	__type(value, __u8);
} policy_ports SEC(".maps");

/* Networks that both ends must be in. Written by user space, read by sockops.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, struct address_prefix);
	__type(value, __u8);
} policy_cidrs SEC(".maps");

/* Written by user space, read by both programs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Written by both programs, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counters);
} counters SEC(".maps");

/* Records of struct event. Written by both programs, read by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

static __always_inline struct counters *counters_here(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline struct settings *settings_now(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Learn where the other end is, and with it the right to redirect to it. */
static __always_inline int find_peer(struct direction *direction)
{
	struct whereabouts *there;
	struct whereabouts found;
	struct sequence_pair key = direction->peer;

	there = bpf_map_lookup_elem(&peers, &key);
	if (!there)
		return REASON_NO_PEER;
	found = *there;
	if (bpf_map_delete_elem(&peers, &key))
		return REASON_NO_PEER;
	direction->peer_sk = found.sk;
	direction->peer_cookie = found.cookie;
	direction->peer_shared = found.shared;
	direction->crosses = direction->net != found.net;
	return REASON_NONE;
}

#endif
